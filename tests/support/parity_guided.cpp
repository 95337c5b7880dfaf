#include "support/parity_guided.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <set>
#include <sstream>

namespace brume::test {
namespace {

std::vector<int64_t> sections(const std::string& respacing) {
  std::vector<int64_t> counts;
  std::istringstream in(respacing);
  for (std::string part; std::getline(in, part, ',');) counts.push_back(std::stoll(part));
  return counts;
}

/// Every i-th time, for the first i that leaves as many as wanted.
std::vector<int64_t> strided(int64_t training_times, int64_t wanted) {
  for (int64_t stride = 1; stride < training_times; ++stride)
    if ((training_times + stride - 1) / stride == wanted) {
      std::vector<int64_t> times;
      for (int64_t t = 0; t < training_times; t += stride) times.push_back(t);
      return times;
    }
  throw std::logic_error(fmt::format("no stride leaves {} of {} times", wanted, training_times));
}

}  // namespace

std::vector<int64_t> space_timesteps(int64_t training_times, const std::string& respacing) {
  if (respacing.starts_with("ddim")) return strided(training_times, std::stoll(respacing.substr(4)));
  const std::vector<int64_t> counts = respacing.empty() ? std::vector<int64_t>{training_times} : sections(respacing);
  const int64_t size = training_times / int64_t(counts.size()), extra = training_times % int64_t(counts.size());
  std::set<int64_t> times;
  int64_t start = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const int64_t here = size + (int64_t(i) < extra ? 1 : 0);
    const double stride = counts[i] > 1 ? double(here - 1) / double(counts[i] - 1) : 1;
    double at = 0;
    for (int64_t k = 0; k < counts[i]; ++k, at += stride) times.insert(start + int64_t(std::nearbyint(at)));
    start += here;
  }
  return {times.begin(), times.end()};
}

std::string guided_noise(const std::string& schedule, int64_t training_times) {
  return schedule == "linear" ? fmt::format("{{type: linear, timesteps: {}, rescale: true}}", training_times)
                              : fmt::format("{{type: {}, timesteps: {}}}", schedule, training_times);
}

std::string guided_spacing(int64_t training_times, const std::string& respacing) {
  if (respacing.find(',') == std::string::npos) {
    const bool leading = respacing.starts_with("ddim");
    if (!leading) return "linspace";
    if (training_times % std::stoll(respacing.substr(4)) == 0) return "leading";
  }
  const std::vector<int64_t> times = space_timesteps(training_times, respacing);
  return fmt::format("{{type: explicit, times: [{}]}}", fmt::join(times.rbegin(), times.rend(), ", "));
}

double PreviousX::to(double sigma) const {
  const double t = noise_->time(sigma);
  return t > 0.5 ? noise_->sigma(std::nearbyint(t) - 1) : 0;
}

double PreviousX::c_out(double sigma) const { return 1 / noise_->signal(to(sigma)) / (1 - keep(sigma)); }

SchedulerConfig read_guided(const GuidedProcess& p) {
  const std::map<std::string, std::string> variances{
      {"FIXED_SMALL", "small"}, {"FIXED_LARGE", "large"}, {"LEARNED", "learned"}, {"LEARNED_RANGE", "learned_range"}};
  const std::string sampler =
      p.ddim ? fmt::format("{{type: ddim, eta: {}}}", p.eta) : fmt::format("{{type: ddpm, variance: {}}}", variances.at(p.var_type));
  const bool previous = p.mean_type == "PREVIOUS_X", clips = p.clip && !(previous && !p.ddim);
  const std::string guidance =
      fmt::format("[{}{}{}]", clips ? "clip" : "", clips && p.cond ? ", " : "",
                  p.cond ? fmt::format("{{type: classifier, model: cond_fn, form: {}}}", p.ddim ? "score" : "mean") : "");
  SchedulerConfig config = read_scheduler(
      fmt::format("noise: {}\nparameterization: {}\nsample: {{sampler: {}, spacing: {}, steps: {}, guidance: {}}}\n",
                  guided_noise(p.schedule, p.training_times), p.mean_type == "EPSILON" ? "eps" : "x0", sampler,
                  guided_spacing(p.training_times, p.respacing), space_timesteps(p.training_times, p.respacing).size(), guidance));
  if (previous) config.parameterization = std::make_shared<PreviousX>(config.noise);
  return config;
}

ScriptedNetwork guided_network(const std::string& var_type) {
  if (var_type == "LEARNED") return [](const Tensor& x, double t) { return at::cat({mix(x, t), x.cos() * 0.5 - 3}, 1); };
  if (var_type == "LEARNED_RANGE") return [](const Tensor& x, double t) { return at::cat({mix(x, t), x.cos() * 0.8}, 1); };
  return mix;
}

GuidedClassifier::GuidedClassifier(std::shared_ptr<const NoiseSchedule> schedule, std::function<double(double)> time)
    : schedule_(std::move(schedule)), time_(std::move(time)) {}

Tensor GuidedClassifier::log_probability(const Tensor& x, double sigma, const Tensor& classes) const {
  const Tensor mu = at::tensor({0.1, -0.4, 0.6, 0.0}).to(x.scalar_type()).index_select(0, classes).view({-1, 1, 1, 1});
  return (x * schedule_->signal(sigma) - mu).pow(2).flatten(1).sum(1) * (-0.35 * (1 + 0.001 * time_(sigma)));
}

}  // namespace brume::test
