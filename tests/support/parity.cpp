#include "support/parity.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/log.h>
#include <ATen/ops/roll.h>
#include <ATen/ops/sin.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

namespace brume::test {

void SchedulerConfig::declare(Fields& f) {
  f.field("noise", noise, "how noisy an image is at time t", "linear");
  f.field("parameterization", parameterization, "what the network predicts", "eps");
  f.section("sample", sample, "sampler, spacing, steps, guidance");
}

SchedulerConfig read_scheduler(const std::string& yaml) {
  SchedulerConfig config;
  read_config(builtins(), parse_yaml(yaml, "scheduler"), config);
  return config;
}

Tensor mix(const Tensor& x, double t) {
  return at::roll(x, 1, x.dim() - 1) * 0.5 + x.sin() * (0.3 * std::cos(0.003 * t)) + 0.1 * std::tanh(0.002 * t - 1);
}

Tensor dummy(const Tensor& x, double t) { return x * t / (t + 1); }

ScriptedNetwork scripted_network(const std::string& name) {
  if (name == "mix") return mix;
  if (name == "dummy") return dummy;
  if (name == "mixvar") return [](const Tensor& x, double t) { return at::cat({mix(x, t), x.cos() * 0.5}, 1); };
  if (name == "mixvarpos") return [](const Tensor& x, double t) { return at::cat({mix(x, t), x.cos() * 0.005 + 0.01}, 1); };
  throw std::logic_error("no network " + name);
}

ScriptedDenoiser::ScriptedDenoiser(ScriptedNetwork network, const SchedulerConfig& config, VarianceOutput variance,
                                   std::function<double(double)> time)
    : network_(std::move(network)), config_(config), variance_(variance), time_(std::move(time)) {}

Estimate ScriptedDenoiser::denoise(const Tensor& x, double sigma, const Condition&) const {
  const Parameterization& q = *config_.parameterization;
  const double t = time_ ? time_(sigma) : config_.noise->time(sigma);
  const Tensor out = network_(x * q.c_in(sigma, *config_.noise), t);
  const bool has_variance = out.size(1) == 2 * x.size(1);
  const Tensor f = has_variance ? out.narrow(1, 0, x.size(1)) : out;
  Estimate d;
  d.x0 = x * q.c_skip(sigma) + f * q.c_out(sigma);
  if (!has_variance) return d;
  d.variance = out.narrow(1, x.size(1), x.size(1));
  if (variance_ == VarianceOutput::plain) d.variance = d.variance.log();
  return d;
}

Trajectory run(const SchedulerConfig& config, std::shared_ptr<const Denoiser> denoiser, const Tensor& x, const std::vector<double>& sigmas,
               Noise& noise, const Condition& condition, const ModelSource& models) {
  for (const auto& g : config.sample.guidance) denoiser = g->wrap(denoiser, {config.noise, models, config.parameterization});
  Trajectory trajectory;
  Run run{condition, noise,
          [&](const Step& step) {
            if (step.index > 0) trajectory.x.push_back(step.x * config.signal(step.sigma));
            trajectory.x0.push_back(step.x0);
            return true;
          },
          config.noise.get()};
  const Tensor last = config.sample.sampler->sample(*denoiser, x / config.signal(sigmas.front()), sigmas, run);
  trajectory.x.push_back(last * config.signal(sigmas.back()));
  return trajectory;
}

void Closeness::near(double got, double wanted, double tolerance, const std::string& what) {
  const double error = std::abs(got - wanted), ratio = tolerance > 0 ? error / tolerance : error > 0 ? INFINITY : 0;
  EXPECT_TRUE(error <= tolerance) << what << ": "
                                  << fmt::format("{} instead of {}, off by {} where {} is allowed", got, wanted, error, tolerance);
  ++count_;
  if (!(ratio <= worst_)) worst_ = ratio, where_ = what;
}

void Closeness::near(const Tensor& got, const nlohmann::json& wanted, double tolerance, const std::string& what) {
  const Tensor flat = got.to(at::kDouble).contiguous().view(-1);
  ASSERT_LE(int64_t(wanted.size()), flat.numel()) << what;
  size_t worst = 0;
  const auto error = [&](size_t i) { return std::abs(flat.data_ptr<double>()[i] - wanted[i].get<double>()); };
  for (size_t i = 1; i < wanted.size(); ++i)
    if (!(error(i) <= error(worst))) worst = i;  // NaN is the worst
  count_ += int64_t(wanted.size()) - 1;
  if (!wanted.empty()) near(flat.data_ptr<double>()[worst], wanted[worst], tolerance, fmt::format("{}[{}]", what, worst));
}

void Closeness::summary(const Tensor& got, const nlohmann::json& wanted, double tolerance, const std::string& what) {
  const Tensor flat = got.to(at::kDouble).contiguous().view(-1);
  const double n = double(flat.numel());
  if (wanted.contains("first8")) near(flat, wanted["first8"], tolerance, what + " first8");
  if (wanted.contains("last4")) near(flat.narrow(0, flat.numel() - 4, 4), wanted["last4"], tolerance, what + " last4");
  if (wanted.contains("sum")) near(flat.sum().item<double>(), wanted["sum"], n * tolerance, what + " sum");
  if (wanted.contains("sum_abs")) near(flat.abs().sum().item<double>(), wanted["sum_abs"], n * tolerance, what + " sum_abs");
  if (wanted.contains("mean_abs")) near(flat.abs().mean().item<double>(), wanted["mean_abs"], tolerance, what + " mean_abs");
}

void Closeness::summary(const Tensor& got, const nlohmann::json& wanted, double relative, double absolute, const std::string& what) {
  for (const char* key : {"first8", "last4", "sum", "sum_abs", "mean_abs"}) {
    if (!wanted.contains(key)) continue;
    double largest = 0;
    if (!wanted[key].is_array())
      largest = got.abs().max().item<double>();
    else
      for (const double v : wanted[key]) largest = std::max(largest, std::abs(v));
    summary(got, {{key, wanted[key]}}, relative * largest + absolute, what);
  }
}

void Closeness::print(const std::string& name) const {
  fmt::print("{}: {} comparisons, worst error / tolerance {:.3f} ({})\n", name, count_, worst_, where_);
}

std::string test_name(const std::string& id) {
  std::string name = id;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

}  // namespace brume::test
