// Parity with the solvers of huggingface/diffusers: trajectories on networks given by a formula (shared/refs/sched_traj.json) and
// diffusers' own tests (peer_tests.json).
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <fmt/format.h>

#include <algorithm>

#include "support/parity_solvers.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

const std::string trajectories = "sched_traj.json", peers = "peer_tests.json";

std::vector<RefCase> cases_of(const std::string& file, const char* list) {
  return ref_cases(file, list, [](const json& c) {
    const std::string s = c["scheduler"];
    return !s.starts_with("DDPM") && !s.starts_with("DDIM") && !s.starts_with("UnCLIP");
  });
}

class SolverTrajectory : public testing::TestWithParam<RefCase> {
 protected:
  static void TearDownTestSuite() { closeness.print("diffusers' solvers, trajectories"); }
  static Closeness closeness;
};
Closeness SolverTrajectory::closeness;

TEST_P(SolverTrajectory, IsReproduced) {
  const json& c = ref_case(GetParam(), "cases");
  SolverRequest request{.scheduler = c["scheduler"], .config = c.value("config_full", c["config"])};
  request.steps = c["num_inference_steps"].is_null() ? 0 : c["num_inference_steps"].get<int64_t>();
  request.set_timesteps = c["set_timesteps_kwargs"];
  request.step = c["step_kwargs"];
  request.told = c["timesteps"].get<std::vector<double>>();
  request.start = c["t_start"];
  // The cases of ../shared/cases hold sigmas that float32 rounded; those of refs are reproduced from brume's own.
  if (GetParam().file.starts_with("..")) request.rounded_sigmas = c.value("sigmas", std::vector<double>());
  const DiffusersSolver solver(request);
  if (!solver.unsupported().empty()) GTEST_SKIP() << c["id"] << ": " << solver.unsupported();
  SCOPED_TRACE(c["id"].get<std::string>() + "\n" + solver.yaml());

  const auto dtype = c["dtype"] == "float64" ? at::kDouble : at::kFloat;
  const auto input = [&](const char* name) { return tensor_of(ref_json(GetParam().file)["noise_check"][name], {2, 3, 4, 4}, dtype); };
  const Tensor x = request.start > 0 ? solver.noisy(input("x0"), input("eps0")) : input("x0") * c["init_noise_sigma"].get<double>();
  const auto noise = batch_noise(c["seed"]);
  const std::vector<Tensor> got = solver.run(scripted_network(c["model"]), x, *noise);
  ASSERT_EQ(got.size(), request.told.size() - size_t(request.start));
  // With flow sigmas the reference multiplies by alpha_t / alpha_s = 90 what nearly cancels, in float32: 4e-5, which the tolerance of
  // the last step takes into account and those of the others do not.
  const double least = c["config"].value("use_flow_sigmas", false) ? c["tol_abs"].get<double>() : 0;
  size_t k = 0;
  for (const json& step : c["steps"]) {
    while (k < got.size() && request.told[k + size_t(request.start)] != step["t"].get<double>()) ++k;
    ASSERT_LT(k, got.size()) << "no step at t = " << step["t"];
    closeness.summary(got[k], {{"first8", step["first8"]}, {"sum", step["sum"]}, {"sum_abs", step["sum_abs"]}},
                      std::max(step["tol"].get<double>(), least),
                      fmt::format("call {}, t = {}", k, request.told[k + size_t(request.start)]));
    ++k;
  }
  closeness.near(got.back(), c["final"], c["tol_abs"], "final");
}

INSTANTIATE_TEST_SUITE_P(Cases, SolverTrajectory, testing::ValuesIn(cases_of(trajectories, "cases")),
                         [](const auto& info) { return ref_name(info.param, ref_case(info.param, "cases")["id"]); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SolverTrajectory);

class SolverPeer : public testing::TestWithParam<RefCase> {
 protected:
  static void TearDownTestSuite() { closeness.print("diffusers' own tests of its solvers"); }
  static Closeness closeness;
  /// dummy_sample_deter and, reversed, dummy_noise_deter; four dimensions or, in the 1D tests, three.
  static Tensor ramp(const json& shape, bool reversed) {
    const int64_t batch = shape[0], count = shape.size() == 4 ? 768 : 96;
    const Tensor up = at::arange(count, at::kFloat), k = reversed ? double(count - 1) - up : up;
    if (shape.size() == 4) return (k.view({3, 8, 8, batch}) / double(count)).permute({3, 0, 1, 2}).contiguous();
    return (k.view({3, 8, batch}) / double(count)).permute({2, 0, 1}).contiguous();
  }
};
Closeness SolverPeer::closeness;

TEST_P(SolverPeer, Passes) {
  const json& c = ref_case(GetParam(), "tests");
  SolverRequest request{.scheduler = c["scheduler"], .config = c["config_full"]};
  const json& set = c["set_timesteps"].back();
  request.steps = set["args"].value("num_inference_steps", int64_t(0));
  request.set_timesteps = set["args"];
  request.told = set["timesteps"].get<std::vector<double>>();
  request.rounded_sigmas = set.value("sigmas", std::vector<double>());
  const bool noised = !c["add_noise"].empty();
  if (const size_t calls = c["num_step_calls"]; calls < request.told.size()) request.start = int64_t(request.told.size() - calls);
  request.unscaled = request.scheduler.starts_with("EDM") && !c["uses_scale_model_input"].get<bool>();
  request.every_call = true;
  for (const auto& [key, value] : c["steps"][0].items())
    if (key == "eta" || key == "order" || key.starts_with("s_")) request.step[key] = value;
  const DiffusersSolver solver(request);
  if (!solver.unsupported().empty()) GTEST_SKIP() << c["id"] << ": " << solver.unsupported();
  SCOPED_TRACE(c["id"].get<std::string>() + "\n" + solver.yaml());

  const json& shape = c["final"]["shape"];
  const bool starts_high = c["uses_scale_model_input"].get<bool>();
  Tensor x = ramp(shape, false);
  if (starts_high) x = x * set["init_noise_sigma"].get<double>();
  if (noised) x = solver.noisy(x, ramp(shape, true));
  const auto noise = batch_noise(c["step_generator_seed"].is_null() ? 0 : c["step_generator_seed"].get<uint64_t>());
  bool replaces = false;
  for (const char* family : {"Euler", "Heun", "LMS", "KDPM2", "DPMSolverSDE"})
    replaces |= starts_high && request.scheduler.starts_with(family);
  std::vector<Tensor> got = solver.run(dummy, x, *noise, replaces);
  while (got.size() < c["num_step_calls"].get<size_t>())  // the same loop again, with a scheduler made from the other's configuration
    for (const Tensor& again : solver.run(dummy, x, *noise, replaces)) got.push_back(again);
  ASSERT_EQ(got.size(), c["num_step_calls"].get<size_t>());
  // Recorded to float32; if values grow large, so do its last digits.
  const double large = std::max(1.0, x.abs().max().item<double>());
  const auto allowed = [&](const Tensor& y) {
    return 5e-5 * (request.scheduler.starts_with("ScoreSdeVe") ? std::max(large, y.abs().max().item<double>()) : large);
  };
  for (const json& step : c["steps"])
    closeness.summary(got.at(step["i"].get<size_t>()), step["out"], allowed(got.at(step["i"].get<size_t>())),
                      fmt::format("call {}", step["i"].get<size_t>()));
  closeness.summary(got.back(), c["final"], allowed(got.back()), "final");
  for (const auto& [name, expected] : c["expected"].items()) {
    if (!expected.value("matches", true)) continue;
    const Tensor size = got.back().abs();
    const double value = name == "result_sum" ? size.sum().item<double>() : size.mean().item<double>(), wanted = expected["value"];
    const double tolerance =
        expected.contains("tol") ? expected["tol"].get<double>() : expected["rtol"].get<double>() * wanted + expected["atol"].get<double>();
    closeness.near(value, wanted, tolerance, name + " expected by the test");
  }
}

INSTANTIATE_TEST_SUITE_P(Tests, SolverPeer, testing::ValuesIn(cases_of(peers, "tests")), [](const auto& info) {
  const std::string id = ref_case(info.param, "tests")["id"];
  return ref_name(info.param, id.substr(id.find("test_scheduler_") + 15));
});
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SolverPeer);

}  // namespace
}  // namespace brume::test
