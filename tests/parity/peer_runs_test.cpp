// Runs of diffusers' schedulers, as their directories are imported, and of the samplers of ComfyUI, Forge (A1111's names) and
// stable-diffusion.cpp, by their names: the ends that those programs give (tests/parity/references/peer_runs.json and webui_runs.json;
// their scripts have the versions), in float64, times and start included.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/sin.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "brume/config/tree.h"
#include "brume/interop/import/diffusers_scheduler.h"
#include "brume/like.h"
#include "support/flow.h"
#include "support/parity.h"

namespace brume::test {
namespace {

using nlohmann::json;

json reference(const std::string& name) { return json::parse(std::ifstream(BRUME_SOURCE_DIR "/tests/parity/references/" + name)); }

const json& peers() {
  static const json all = [] {
    json read = reference("peer_runs.json");
    for (const json& c : reference("webui_runs.json")) read["names"].push_back(c);
    return read;
  }();
  return all;
}

/// Stands for noise: the start is k = -1, the draws are 0, 1, ...
Tensor peer_wave(int64_t k) {
  const Tensor i = at::arange(96, at::kDouble);
  return ((i * 12.9898 + double(k + 1) * 78.233).sin() * 1.3 + (i * (double(k + 2) * 0.7321)).cos() * 0.4).view({2, 3, 4, 4});
}

class Draws final : public Noise {
 public:
  Tensor draw(const Tensor&, double, double) override { return peer_wave(count_++); }

 private:
  int64_t count_ = 0;
};

struct PeerRun {
  SchedulerConfig config;
  std::string noise_embedding = "{}";  ///< of the network
};

/// Asks the network `mix` at the time that a model's network receives (Pipeline::c_noise).
class TimedMix final : public Denoiser {
 public:
  TimedMix(const PeerRun& run, std::vector<double> levels) : run_(run), levels_(std::move(levels)) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    const Parameterization& q = *run_.config.parameterization;
    times.push_back(time(sigma));
    const Tensor f = mix(x * q.c_in(sigma, *run_.config.noise), times.back());
    Estimate d;
    d.x0 = q.c_skip(sigma) == 0 ? f * q.c_out(sigma) : x * q.c_skip(sigma) + f * q.c_out(sigma);
    return d;
  }
  mutable std::vector<double> times;

 private:
  double time(double sigma) const {
    if (run_.noise_embedding == "{input: quarter_log}") return std::log(sigma) / 4;
    if (run_.noise_embedding == "{input: quarter_log, scale: 1000}") return 250 * std::log(sigma);
    const NoiseSchedule& noise = *run_.config.noise;
    const double t = noise.timestep(sigma);
    TimestepRounding rule = run_.config.sample.timestep_rounding;
    if (rule == TimestepRounding::nearest_step)
      rule = std::find(levels_.begin(), levels_.end(), sigma) == levels_.end() ? TimestepRounding::exact : TimestepRounding::nearest;
    if (rule == TimestepRounding::below) return std::floor(t + 1e-6);
    return rule == TimestepRounding::nearest && noise.timesteps() > 0 ? std::nearbyint(t) : t;
  }
  const PeerRun& run_;
  std::vector<double> levels_;
};

double start_std(const SchedulerConfig& c, double sigma) {
  const bool below = sigma < c.noise->sigma(c.noise->t_max()) * (1 - 1e-5);
  const StartStd start = c.sample.start;
  return start == StartStd::sigma || (start == StartStd::schedule_at_max && below) ? sigma : c.noise->start_std(sigma);
}

/// Compares the end of a run with the peer's, in its frame, and returns the times the network received.
std::vector<double> compare(const PeerRun& run, const json& c, bool frame, double tolerance) {
  const std::vector<double> sigmas = run.config.sigmas();
  const auto mixed = std::make_shared<TimedMix>(run, sigmas);
  std::shared_ptr<const Denoiser> denoiser = mixed;
  for (const auto& g : run.config.sample.guidance) denoiser = g->wrap(denoiser, {run.config.noise, no_models()});
  Draws noise;
  const Condition none;
  brume::Run state{none, noise, {}, run.config.noise.get()};
  const Tensor x = peer_wave(-1) * start_std(run.config, sigmas.front());
  const Tensor end = run.config.sample.sampler->sample(*denoiser, x, sigmas, state) * (frame ? run.config.signal(sigmas.back()) : 1);
  Closeness closeness;
  closeness.near(end, c["end"], tolerance * std::max(1.0, end.abs().max().item<double>()), "end");
  return mixed->times;
}

std::vector<size_t> count_of(const char* list) {
  std::vector<size_t> all(peers()[list].size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  return all;
}

class ImportedRun : public testing::TestWithParam<size_t> {};

TEST_P(ImportedRun, EndsAsDiffusersDoes) {
  const json& c = peers()["schedulers"][GetParam()];
  json config = c["config"];
  const std::string scheduler = config["_class_name"] = c["scheduler"];
  const DiffusersScheduler s = read_diffusers_scheduler(DiffusersConfig(config, "scheduler_config.json", "a scheduler"), false, c["steps"]);
  PeerRun run;
  if (s.noise_embedding.is_map()) run.noise_embedding = flow(s.noise_embedding);
  const std::string yaml =
      fmt::format("noise: {}\nparameterization: {}\nsample: {}\n", flow(s.noise), flow(s.parameterization), flow(s.sample(c["steps"], {})));
  SCOPED_TRACE(yaml);
  run.config = read_scheduler(yaml);
  bool in_sigma = false;
  for (const char* family : {"Euler", "Heun", "LMS", "KDPM2", "EDM", "CMStochastic"}) in_sigma |= scheduler.starts_with(family);
  const std::vector<double> times = compare(run, c, !in_sigma, 2e-6);
  ASSERT_EQ(times.size(), c["times"].size());
  for (size_t i = 0; i < times.size(); ++i) EXPECT_NEAR(times[i], c["times"][i].get<double>(), 2e-3) << "call " << i;
}

INSTANTIATE_TEST_SUITE_P(Cases, ImportedRun, testing::ValuesIn(count_of("schedulers")), [](const auto& info) {
  const json& c = peers()["schedulers"][info.param];
  return test_name(fmt::format("{}_{}", info.param, c["scheduler"].get<std::string>()));
});

class NamedRun : public testing::TestWithParam<size_t> {};

TEST_P(NamedRun, EndsAsThatProgramDoes) {
  const json& c = peers()["names"][GetParam()];
  const bool flows = c["model"] == "flow";
  const Likeness like = likeness(c["like"].get<std::string>(), "--like", false, flows);
  const std::string model = flows ? "noise: {type: flow, shift: 3, t_min: 0.001}\nparameterization: flow\n"
                                  : "noise: {type: scaled_linear, beta_start: 0.00085, beta_end: 0.012}\nparameterization: eps\n";
  Value sample = like.sample;
  sample.set("steps", value_of(c["steps"].get<int64_t>()));
  const std::string yaml = fmt::format("{}sample: {}\n", model, flow(sample));
  SCOPED_TRACE(yaml);
  PeerRun run;
  run.config = read_scheduler(yaml);
  const bool listed = yaml.find("inclusive: true}") != yaml.npos;              // the lowest level, 0.029, is below the schedule's here
  compare(run, c, c.value("vp", false), flows ? 5e-5 : listed ? 1e-4 : 5e-7);  // s = 1 is sigma = 1e6 here
}

INSTANTIATE_TEST_SUITE_P(Cases, NamedRun, testing::ValuesIn(count_of("names")), [](const auto& info) {
  const json& c = peers()["names"][info.param];
  return test_name(fmt::format("{}_{}_{}", info.param, c["like"].get<std::string>(), c["model"].get<std::string>()));
});

}  // namespace
}  // namespace brume::test
