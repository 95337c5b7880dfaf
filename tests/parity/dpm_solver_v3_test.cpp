// Parity with the authors' DPM-Solver-v3 (shared/refs3/other_samplers.json), in float64: the estimates' arguments and the end of each run,
// with statistics in closed form and without.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/core/sampler.h"
#include "brume/weights/safetensors.h"
#include "support/exact_waves.h"
#include "support/parity.h"
#include "support/refs.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

using nlohmann::json;

const std::string file = "../refs3/other_samplers.json";

class Recorded final : public Denoiser {
 public:
  explicit Recorded(bool mixture) : mixture_(mixture) {}
  mutable std::vector<double> sigmas, sums;
  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    sigmas.push_back(sigma), sums.push_back(x.sum().item<double>());
    return {.x0 = mixture_ ? exact_mixture(x, sigma) : exact_gauss(x, sigma), .x0_uncond = {}, .variance = {}};
  }

 private:
  bool mixture_;
};

/// l, s and b of the reference, in a file.
std::string statistics(const TempFolder& folder, int64_t points) {
  const Tensor k = at::arange(points + 1, at::kDouble).view({-1, 1, 1, 1}), e = at::arange(48, at::kDouble).view({1, 3, 4, 4});
  const std::string path = folder.file("statistics.safetensors");
  write_safetensors(
      path,
      {{"l", (k * 0.05 + e * 0.2).sin() * 0.3 + 0.5}, {"s", (k * 0.03 - e * 0.1).cos() * 0.2}, {"b", (k * 0.04 + e * 0.3).sin() * 0.1}});
  return path;
}

Tensor run_with(const std::string& yaml, const Denoiser& denoiser, const std::vector<double>& sigmas) {
  const auto schedule = make<NoiseSchedule>("edm");
  const auto noise = per_image_noise(0, 0);
  const Condition none;
  brume::Run run{none, *noise, {}, schedule.get()};
  return make<Sampler>(yaml)->sample(denoiser, wave(0) * sigmas.front(), sigmas, run);
}

TEST(DpmSolverV3, IsReproduced) {
  BRUME_NEED_REF(file);
  const TempFolder folder;
  Closeness close;
  for (const json& c : ref_json(file)["dpm_solver_v3"]) {
    const std::string id = c["id"];
    const int64_t points = c["K"], steps = c["steps"];
    const auto flag = [&](const char* key) { return c[key].get<bool>(); };
    const std::string of =
        flag("degenerated") ? fmt::format("pieces: {}", points / steps) : fmt::format("statistics: {}", statistics(folder, points));
    const std::string yaml =
        fmt::format("{{type: dpm_solver_v3, order: {}, {}, pseudo: {}, corrector: {}, pseudo_corrector: {}, lower_order_final: {}}}",
                    c["order"].get<int64_t>(), of, flag("p_pseudo"), flag("use_corrector"), flag("c_pseudo"), flag("lower_order_final"));
    SCOPED_TRACE(yaml);
    const Recorded denoiser(c["denoiser"] == "mix");
    const Tensor end = run_with(yaml, denoiser, c["timesteps"].get<std::vector<double>>());
    ASSERT_EQ(denoiser.sums.size(), c["calls"].size());
    for (size_t i = 0; i < denoiser.sums.size(); ++i) {
      close.near(denoiser.sigmas[i], c["calls"][i]["sigma"], 1e-9 * denoiser.sigmas[i], id + " sigma");
      close.near(denoiser.sums[i], c["calls"][i]["x_sum"], 1e-8 * (96 + std::abs(denoiser.sums[i])), id + " x");
    }
    close.near(end, c["final"], c["rtol"].get<double>() * std::max(1.0, end.abs().max().item<double>()), id + " final");
  }
  close.print("dpm_solver_v3");
}

// With one statistic for all numbers a file says what is said without one: l = 1, s = b = 0 on the same grid.
TEST(DpmSolverV3, AFileOfTheTrivialStatisticsIsNone) {
  const TempFolder folder;
  const Tensor one = at::ones({41}, at::kDouble);
  write_safetensors(folder.file("trivial.safetensors"), {{"l", one}, {"s", one * 0}, {"b", one * 0}});
  const std::vector<double> sigmas{16, 4, 1, 0.25, 0.0625, 0};
  const Recorded denoiser(true);
  const Tensor with =
      run_with(fmt::format("{{type: dpm_solver_v3, statistics: {}}}", folder.file("trivial.safetensors")), denoiser, sigmas);
  EXPECT_LT((with - run_with("{type: dpm_solver_v3, pieces: 10}", denoiser, sigmas)).abs().max().item<double>(), 1e-12);
}

TEST(DpmSolverV3, WrongStatisticsAreNamed) {
  const TempFolder folder;
  const std::string path = folder.file("wrong.safetensors");
  write_safetensors(path, {{"l", at::ones({5}, at::kDouble)}, {"s", at::ones({4}, at::kDouble)}, {"b", at::ones({5}, at::kDouble)}});
  const std::string yaml = fmt::format("{{type: dpm_solver_v3, statistics: {}}}", path);
  EXPECT_NE(error_of([&] { make<Sampler>(yaml); }).find("must hold l, s and b of one shape, [points, ...]"), std::string::npos);
  const Tensor other = at::ones({5, 3, 8, 8}, at::kDouble);
  write_safetensors(path, {{"l", other}, {"s", other}, {"b", other}});
  EXPECT_NE(error_of([&] { run_with(yaml, Recorded(false), {4, 1, 0.5}); }).find("is of other images than these"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
