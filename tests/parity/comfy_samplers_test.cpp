// Parity with the samplers of ComfyUI and of other programs (shared/refs3/comfy_samplers.json, other_samplers.json), in float64, on the
// exact denoisers: every network call and the result. Flow matching is run in x = y / (1 - s), sigma = s / (1 - s).
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "brume/core/sampler.h"
#include "support/exact_waves.h"
#include "support/parity.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

const std::string comfy = "../refs3/comfy_samplers.json", others = "../refs3/other_samplers.json";
constexpr double pure_noise = 1e12;  // sigma at s = 1

double ve(double s) { return s >= 1 ? pure_noise : s / (1 - s); }

/// What one of the other program's samplers is in brume.
struct Words {
  const char* sampler;                            ///< brume's, with options
  std::map<std::string, std::string> names{};     ///< of its arguments; "" = left out
  std::map<std::string, std::string> defaults{};  ///< arguments that the other program fills in
  bool first_used = false;                        ///< in flow matching a first s of 1 is replaced
};

const std::map<std::string, Words> words = {
    {"sample_heunpp2", {"heunpp2"}},
    {"sample_ipndm", {"ipndm, euler_at_final: true", {{"max_order", "order"}}}},
    {"sample_ipndm_v", {"ipndm_v", {{"max_order", "order"}}}},
    {"sample_deis",
     {"deis, variable: vp_time, lower_order_final: false", {{"max_order", "order"}, {"deis_mode", ""}}, {{"max_order", "3"}}}},
    {"sample_res_multistep", {"res_multistep"}},
    {"sample_res_multistep_cfg_pp", {"res_multistep"}},
    {"sample_res_multistep_ancestral", {"res_multistep_ancestral"}},
    {"sample_res_multistep_ancestral_cfg_pp", {"res_multistep_ancestral"}},
    {"sample_gradient_estimation", {"gradient_estimation", {{"ge_gamma", "gamma"}}}},
    {"sample_gradient_estimation_cfg_pp", {"gradient_estimation", {{"ge_gamma", "gamma"}}}},
    {"sample_er_sde", {"er_sde", {{"max_stage", "stages"}}, {}, true}},
    {"sample_seeds_2", {"seeds_2", {}, {}, true}},
    {"sample_seeds_3", {"seeds_3", {{"r_1", "r1"}, {"r_2", "r2"}}, {}, true}},
    {"sample_sa_solver",
     {"sa_solver, before_zero: true", {}, {{"predictor_order", "3"}, {"corrector_order", "4"}, {"simple_order_2", "false"}}, true}},
    {"sample_sa_solver_pece",
     {"sa_solver_pece, before_zero: true", {}, {{"predictor_order", "3"}, {"corrector_order", "4"}, {"simple_order_2", "false"}}, true}},
    {"sample_euler_cfg_pp", {"euler"}},
    {"sample_euler_ancestral_cfg_pp", {"euler_ancestral"}},
    {"sample_dpmpp_2m_cfg_pp", {"dpmpp_2m"}},
    {"sample_dpmpp_2s_ancestral_cfg_pp", {"dpmpp_2s_ancestral"}},
    {"sample_ddpm", {"ddpm"}},
    {"sample_euler_ancestral_RF", {"euler_ancestral, split: flow"}},
    {"sample_dpmpp_2s_ancestral_RF", {"dpmpp_2s_ancestral, split: flow"}},
    {"sample_dpm_2_ancestral_RF", {"dpm_2_ancestral, split: flow"}},
    {"sample_dpmpp_2m_sde", {"dpmpp_2m_sde", {{"solver_type", "solver"}}, {}, true}},
    {"sample_dpmpp_3m_sde", {"dpmpp_3m_sde", {}, {}, true}},
    {"sample_dpmpp_sde", {"dpmpp_sde", {}, {}, true}},
    {"sample_lcm", {"consistency"}},
    {"uni_pc.sample_unipc", {"unipc, order: 3", {{"variant", "solver"}}}},
    {"refined_exp_s", {"res_2s", {{"simple_phi_calc", ""}, {"denoise_to_zero", ""}}}},
};

std::string yaml_of(const Words& w, const json& arguments, const json& sampling) {
  std::map<std::string, std::string> given = w.defaults;
  for (const auto& [key, value] : arguments.items()) given[key] = value.is_string() ? value.get<std::string>() : value.dump();
  std::string yaml = std::string("{type: ") + w.sampler;
  for (const auto& [key, value] : given) {
    const auto renamed = w.names.find(key);
    const std::string name = renamed == w.names.end() ? key : renamed->second;
    if (!name.empty()) yaml += ", " + name + ": " + value;
  }
  if (std::string(w.sampler).starts_with("sa_solver"))
    yaml += fmt::format(", sigma_lo: {:.17g}, sigma_hi: {:.17g}", sampling["sa_end"].get<double>(), sampling["sa_start"].get<double>());
  return yaml + "}";
}

/// Keeps the calls in the frame of the reference.
class RecordedDenoiser final : public Denoiser {
 public:
  RecordedDenoiser(const std::string& name, const json& cfg_scale, bool flow) : mixture_(name != "gauss"), flow_(flow) {
    if (cfg_scale.is_number()) scale_ = cfg_scale.get<double>();
  }
  struct Call {
    double sigma, x_sum, d_sum;
  };
  mutable std::vector<Call> calls;

  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    Estimate d;
    d.x0 = mixture_ ? exact_mixture(x, sigma) : exact_gauss(x, sigma);
    if (scale_) {
      d.x0_uncond = exact_gauss(x, sigma);
      d.x0 = d.x0_uncond + (d.x0 - d.x0_uncond) * *scale_;
    }
    const double s = sigma / (1 + sigma);
    calls.push_back({flow_ ? s : sigma, (flow_ ? x / (1 + sigma) : x).sum().item<double>(), d.x0.sum().item<double>()});
    return d;
  }

 private:
  bool mixture_, flow_;
  std::optional<double> scale_;
};

/// Compares the calls, and the end of a run in the reference's frame.
void compare(Closeness& closeness, const json& c, const RecordedDenoiser& denoiser, const Tensor& end) {
  const double rtol = c["rtol"];
  ASSERT_EQ(denoiser.calls.size(), c["calls"].size());
  for (size_t k = 0; k < denoiser.calls.size(); ++k) {
    const json& wanted = c["calls"][k];
    const auto& got = denoiser.calls[k];
    const auto near = [&](double value, const json& w, double size, const char* what) {
      closeness.near(value, w.get<double>(), rtol * (size + std::abs(w.get<double>())), fmt::format("{} of call {}", what, k));
    };
    near(got.sigma, wanted.contains("s") ? wanted["s"] : wanted["sigma"], 0, "sigma");
    near(got.x_sum, wanted["x_sum"], 96, "x");
    if (wanted.contains("D_sum")) near(got.d_sum, wanted["D_sum"], 96, "D");
  }
  closeness.near(end, c["final"], rtol * std::max(1.0, end.abs().max().item<double>()), "final");
}

Tensor run_with(const std::string& yaml, const Denoiser& denoiser, double start, const std::vector<double>& sigmas, Noise& noise,
                std::function<bool(const Step&)> observer = {}) {
  const auto schedule = make<NoiseSchedule>("edm");
  const Condition none;
  brume::Run run{none, noise, std::move(observer), schedule.get()};
  return make<Sampler>(yaml)->sample(denoiser, wave(0) * start, sigmas, run);
}

class ComfySampler : public testing::TestWithParam<size_t> {
 protected:
  static void TearDownTestSuite() { closeness.print("ComfyUI's samplers"); }
  static Closeness closeness;
};
Closeness ComfySampler::closeness;

TEST_P(ComfySampler, IsReproduced) {
  const json& all = ref_json(comfy);
  const json& c = all["cases"][GetParam()];
  const Words& w = words.at(c["fn"]);
  const bool flow = c["frame"] == "flow", unipc = c.contains("start");
  const json list = c["sigmas"];
  std::vector<double> sigmas = all["sigmas"][list.get<std::string>()];
  json sampling = all["meta"]["model_sampling"][list.get<std::string>()];
  double start = sigmas.front();
  if (flow && w.first_used && sigmas.front() == 1) sigmas.front() = sampling["first_sigma_used"];
  if (flow) {
    start = start * (1 + ve(sigmas.front()));
    for (double& s : sigmas) s = ve(s);
    for (const char* key : {"sa_start", "sa_end"}) sampling[key] = ve(sampling[key]);
  }
  if (unipc) start = std::sqrt(1 + start * start), sigmas.back() = 0.001;

  const std::string yaml = yaml_of(w, c["kwargs"], sampling);
  SCOPED_TRACE(c["id"].get<std::string>() + "\n" + yaml);
  const RecordedDenoiser denoiser(c["denoiser"], c.value("cfg_scale", json()), flow);
  int64_t draws = 0;
  CountedWaves noise([&] { return draws++; });
  compare(closeness, c, denoiser, run_with(yaml, denoiser, start, sigmas, noise));
}

std::vector<size_t> count_of(const std::string& file, const char* list) {
  std::vector<size_t> all;
  if (has_ref(file))
    for (size_t i = 0; i < ref_json(file)[list].size(); ++i) all.push_back(i);
  return all;
}
auto named(const std::string& file, const char* list) {
  return [file, list](const auto& info) { return test_name(ref_json(file)[list][info.param]["id"]); };
}

INSTANTIATE_TEST_SUITE_P(Cases, ComfySampler, testing::ValuesIn(count_of(comfy, "cases")), named(comfy, "cases"));
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ComfySampler);

class RefinedSolver : public testing::TestWithParam<size_t> {};
TEST_P(RefinedSolver, IsReproduced) {
  const json& c = ref_json(others)["refined_exp_s"][GetParam()];
  std::vector<double> sigmas = c["sigmas"];
  if (!c["kwargs"].value("denoise_to_zero", true)) sigmas.pop_back();
  const std::string yaml = yaml_of(words.at("refined_exp_s"), c["kwargs"], {});
  SCOPED_TRACE(yaml);
  const RecordedDenoiser denoiser(c["denoiser"], {}, false);
  int64_t draws = 0;
  CountedWaves noise([&] { return draws++; });
  Closeness closeness;
  compare(closeness, c, denoiser, run_with(yaml, denoiser, sigmas.front(), sigmas, noise));
}
INSTANTIATE_TEST_SUITE_P(Cases, RefinedSolver, testing::ValuesIn(count_of(others, "refined_exp_s")), named(others, "refined_exp_s"));
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(RefinedSolver);

class ExponentialTableaus : public testing::TestWithParam<size_t> {};
TEST_P(ExponentialTableaus, AreReproduced) {
  const json& c = ref_json(others)["exponential_runge_kutta"][GetParam()];
  const std::vector<double> sigmas = c["sigmas"];
  const std::string yaml = fmt::format("{{type: exponential_rk, tableau: {}, c2: {}, c3: {}}}", c["rk"].get<std::string>(),
                                       c["c2"].get<double>(), c["c3"].get<double>());
  SCOPED_TRACE(yaml);
  const RecordedDenoiser denoiser(c["denoiser"], {}, false);
  FixedNoise noise(0);
  Closeness closeness;
  compare(closeness, c, denoiser, run_with(yaml, denoiser, sigmas.front(), sigmas, noise));
}
INSTANTIATE_TEST_SUITE_P(Cases, ExponentialTableaus, testing::ValuesIn(count_of(others, "exponential_runge_kutta")),
                         named(others, "exponential_runge_kutta"));
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ExponentialTableaus);

// The reference draws before every step, with factor 0, and before every way down.
class RestartSampler : public testing::TestWithParam<size_t> {};
TEST_P(RestartSampler, IsReproduced) {
  const json& c = ref_json(others)["restart"][GetParam()];
  std::string intervals;
  for (const auto& [_, i] : c["restart_info"].get<std::map<std::string, std::vector<double>>>())
    intervals += fmt::format("{}{{levels: {}, times: {}, t_min: {}, t_max: {}}}", intervals.empty() ? "" : ", ", i[0], i[1], i[2], i[3]);
  const std::string yaml = fmt::format("{{type: restart, s_noise: {}, intervals: [{}]}}", c["kwargs"].value("S_noise", 1.0), intervals);
  SCOPED_TRACE(yaml);
  const int64_t steps = c["num_steps"];
  std::vector<double> sigmas;
  for (int64_t i = 0; i < steps; ++i) {
    const double hi = std::pow(80.0, 1.0 / 7), lo = std::pow(0.002, 1.0 / 7);
    sigmas.push_back(std::pow(hi + double(i) / double(steps - 1) * (lo - hi), 7));
  }
  sigmas.push_back(0);
  const RecordedDenoiser denoiser(c["denoiser"], {}, false);
  int64_t done = 0, jumps = 0;
  CountedWaves noise([&] { return done + jumps++; });
  const auto count = [&](const Step&) { return ++done > 0; };
  Closeness closeness;
  compare(closeness, c, denoiser, run_with(yaml, denoiser, 80, sigmas, noise, count));
}
INSTANTIATE_TEST_SUITE_P(Cases, RestartSampler, testing::ValuesIn(count_of(others, "restart")), named(others, "restart"));
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(RestartSampler);

class StorkSampler : public testing::TestWithParam<size_t> {};
TEST_P(StorkSampler, IsReproduced) {
  const json& c = ref_json(others)["stork2_flow"][GetParam()];
  std::vector<double> sigmas = c["sigmas"];
  sigmas.erase(sigmas.begin() + 1);  // the middle of the first step
  for (double& s : sigmas) s = ve(s);
  const std::string yaml = fmt::format("{{type: stork_2, nodes: published, substeps: {}, derivatives: {}}}",
                                       c["options"]["s"].get<int64_t>(), c["options"]["derivative_order"].get<int64_t>());
  SCOPED_TRACE(yaml);
  const RecordedDenoiser denoiser(c["denoiser"], {}, true);
  FixedNoise noise(0);
  Closeness closeness;
  compare(closeness, c, denoiser, run_with(yaml, denoiser, 1 + sigmas.front(), sigmas, noise));
}
INSTANTIATE_TEST_SUITE_P(Cases, StorkSampler, testing::ValuesIn(count_of(others, "stork2_flow")), named(others, "stork2_flow"));
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(StorkSampler);

}  // namespace
}  // namespace brume::test
