// The import of diffusers' schedulers (interop/import/diffusers_scheduler.h) against their recorded runs (shared/refs/sched_traj.json):
// from what a file says, and from the defaults of its class, come the sampler and the sigmas that parity was shown of (solver_test.cpp and
// diffusers_test.cpp), the spread of the noise that a run starts from, and the times that the network receives.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/interop/import/diffusers_scheduler.h"
#include "support/flow.h"
#include "support/parity_solvers.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

const std::string file = "sched_traj.json";

/// Whether the import has a class and words for it.
bool imported(const json& c) {
  const std::string scheduler = c["scheduler"];
  const json& config = c["config"];
  const auto word = [&](const char* key, const char* otherwise) { return config.value(key, std::string(otherwise)); };
  const bool sde = word("algorithm_type", "").starts_with("sde"), trailing = word("timestep_spacing", "linspace") == "trailing";
  if (scheduler.ends_with("InverseScheduler") || !c["set_timesteps_kwargs"].empty() || c["num_inference_steps"].is_null()) return false;
  if (scheduler.starts_with("DPMSolver") && sde && config.value("solver_order", 2) == 3) return false;    // of another sign there
  if (c["num_inference_steps"] == 1 && word("timestep_spacing", "linspace") == "linspace") return false;  // at t = 0 there
  if (config.value("use_flow_sigmas", false) && (scheduler.starts_with("DEIS") || scheduler.starts_with("SASolver"))) return false;
  if (config.value("use_flow_sigmas", false) && word("final_sigmas_type", "zero") == "sigma_min") return false;
  if (config.contains("lambda_min_clipped") && trailing && scheduler.starts_with("DPMSolverMultistep")) return false;
  if (scheduler.starts_with("DDPM") && (word("variance_type", "") == "learned" || word("beta_schedule", "") == "laplace")) return false;
  return !config.value("invert_sigmas", false) && !config.value("use_dynamic_shifting", false) && !config.contains("sampling_eps");
}

std::vector<RefCase> cases() { return ref_cases(file, "cases", imported); }

/// The parts of a run, resolved: with every key of every plugin. `told`: the noise level that the network receives, if not the timestep.
struct Said {
  std::string sampler, guidance, parameterization, told;
  SchedulerConfig config;
  explicit Said(const std::string& yaml) {
    const Value all = read_config(builtins(), parse_yaml(yaml, "scheduler"), config), *sample = all.find("sample");
    sampler = dump_yaml(*sample->find("sampler"));
    guidance = dump_yaml(*sample->find("guidance"));
    parameterization = dump_yaml(*all.find("parameterization"));
  }
};

/// As `brume sample` of an imported directory runs it.
Said said_by(const std::string& scheduler, json config, int64_t steps) {
  config["_class_name"] = scheduler;
  const DiffusersScheduler s = read_diffusers_scheduler(DiffusersConfig(config, "scheduler_config.json", "a scheduler"), false);
  Said said(
      fmt::format("noise: {}\nparameterization: {}\nsample:\n  sampler: {}\n  spacing: {}\n  steps: {}\n  guidance: {}\n  start: {}\n  "
                  "timestep_rounding: {}\n",
                  flow(s.noise), flow(s.parameterization), flow(s.sampler), flow(s.spacing), steps, flow(Value::list(s.guidance)), s.start,
                  s.timestep_rounding));
  said.told = flow(s.noise_embedding);
  return said;
}

/// The same, as the parity tests say it.
Said shown(const json& c, int64_t steps) {
  std::string scheduler = c["scheduler"];
  json config = c["config_full"];
  if (scheduler.starts_with("UnCLIP")) {  // DDPM at times from end to end
    scheduler = "DDPMScheduler";
    config.update({{"beta_schedule", "squaredcos_cap_v2"}, {"timestep_spacing", "linspace"}});
  }
  if (scheduler.starts_with("DDPM") || scheduler.starts_with("DDIM")) {
    const SchedulerInBrume s({.scheduler = scheduler, .config = config, .steps = steps});
    EXPECT_EQ(s.unsupported(), "");
    return Said(s.yaml());
  }
  SolverRequest request{.scheduler = scheduler, .config = c["config_full"], .steps = steps};
  if (scheduler.starts_with("TCD")) request.step = {{"eta", 0}};
  request.told = c["timesteps"].get<std::vector<double>>();
  const DiffusersSolver s(request);
  EXPECT_EQ(s.unsupported(), "");
  return Said(s.yaml());
}

/// What the network receives at a noise level.
double timestep_rounding(const Said& said, double sigma) {
  if (said.told == "{input: quarter_log}") return std::log(sigma) / 4;
  if (said.told == "{input: quarter_log, scale: 1000}") return 250 * std::log(sigma);
  const double t = said.config.noise->timestep(sigma);
  if (said.told == "{input: sigma}") return t;  // the recorded times of score SDE, which tell sigma, are the times it is the sigma of
  EXPECT_EQ(said.told, "{}");
  const TimestepRounding rule = said.config.sample.timestep_rounding;
  if (rule == TimestepRounding::nearest || rule == TimestepRounding::nearest_step) return std::nearbyint(t);
  return rule == TimestepRounding::below ? std::floor(t + 1e-6) : t;
}

class SchedulerImport : public testing::TestWithParam<RefCase> {};

TEST_P(SchedulerImport, SaysTheRunThatWasRecorded) {
  const json& c = ref_case(GetParam(), "cases");
  const std::string scheduler = c["scheduler"];
  const int64_t steps = c["num_inference_steps"];
  const Said wanted = shown(c, steps);
  for (const char* keys : {"config_full", "config"}) {
    SCOPED_TRACE(c["id"].get<std::string>() + ", " + keys);
    const Said got = said_by(scheduler, c[keys], steps);
    EXPECT_EQ(got.sampler, wanted.sampler);
    EXPECT_EQ(got.guidance, wanted.guidance);
    EXPECT_EQ(got.parameterization, wanted.parameterization);
    const std::vector<double> sigmas = got.config.sigmas(), others = wanted.config.sigmas();
    ASSERT_EQ(sigmas.size(), others.size());
    for (size_t i = 0; i < sigmas.size(); ++i) EXPECT_NEAR(sigmas[i], others[i], 1e-9 * others[i]) << "sigma " << i;

    const NoiseSchedule& noise = *got.config.noise;
    const auto times = c["timesteps"].get<std::vector<double>>();
    const bool even_times = c["config"].value("interpolation_type", "") == "log_linear";  // not those of its levels: a loss of the import
    for (size_t i = 0; i + 1 < sigmas.size() && !even_times; ++i) {
      if (sigmas[i] >= 1e6) continue;  // s = 1, at which a flow's sigma has no bound
      const double t = timestep_rounding(got, sigmas[i]);
      const bool there = std::any_of(times.begin(), times.end(), [&](double other) { return std::abs(other - t) < 0.02; });
      EXPECT_TRUE(there) << "step " << i << " receives " << t << ", and the recorded times are " << c["timesteps"].dump();
    }
    bool sigma_frame = false;
    for (const char* family : {"Euler", "Heun", "LMS", "KDPM2", "DPMSolverSDE", "EDM", "CMStochastic", "ScoreSdeVe"})
      sigma_frame |= scheduler.starts_with(family);
    const double from = sigmas.front();
    const double spread =
        (got.config.sample.start == StartStd::sigma ? from : noise.start_std(from)) * (sigma_frame ? 1 : noise.signal(from));
    EXPECT_NEAR(spread, c["init_noise_sigma"].get<double>(), 1e-3 * spread);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SchedulerImport, testing::ValuesIn(cases()),
                         [](const auto& info) { return ref_name(info.param, ref_case(info.param, "cases")["id"]); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SchedulerImport);

}  // namespace
}  // namespace brume::test
