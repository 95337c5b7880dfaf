#pragma once
// What the parity tests share: a schedule, a parameterization and a sampler read from a configuration as a user writes it,
// networks given by a formula, and comparisons that remember how close they were.
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "brume/core/denoiser.h"
#include "brume/core/parameterization.h"
#include "brume/diffusion/options.h"
#include "support/registry.h"

namespace brume::test {

/// The parts of a configuration that a reference's scheduler decides.
struct SchedulerConfig {
  std::shared_ptr<const NoiseSchedule> noise;
  std::shared_ptr<const Parameterization> parameterization;
  SampleOptions sample;
  void declare(Fields& f);
  double signal(double sigma) const { return noise->signal(sigma); }
  std::vector<double> sigmas() const { return sample.spacing->sigmas(*noise, sample.steps); }
};
SchedulerConfig read_scheduler(const std::string& yaml);

/// A network given by a formula: x in the network's frame and the training time to F, [B, C, ...] or, if it gives a
/// variance too, [B, 2C, ...].
using ScriptedNetwork = std::function<Tensor(const Tensor& x, double t)>;

/// 0.5 roll(x, +1, last dim) + 0.3 cos(0.003 t) sin(x) + 0.1 tanh(0.002 t - 1)
Tensor mix(const Tensor& x, double t);
/// x t / (t + 1), diffusers' own
Tensor dummy(const Tensor& x, double t);

/// The reference's network of that name: mix, dummy, or mix with a variance (mixvar, mixvarpos).
ScriptedNetwork scripted_network(const std::string& name);

/// What the second half of a network's channels holds: the raw number of learned_range or the log variance as brume takes
/// them, or the variance itself (diffusers' "learned").
enum class VarianceOutput { as_brume, plain };

/// D(x) = c_skip x + c_out F(c_in x, t) around a scripted network. `time` says what t is at sigma; by default the schedule's.
class ScriptedDenoiser final : public Denoiser {
 public:
  ScriptedDenoiser(ScriptedNetwork network, const SchedulerConfig& config, VarianceOutput variance = VarianceOutput::as_brume,
                   std::function<double(double)> time = {});
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override;

 private:
  ScriptedNetwork network_;
  const SchedulerConfig& config_;
  VarianceOutput variance_;
  std::function<double(double)> time_;
};

/// What a run went through: x after every step in the network's frame, and the estimates that led there.
struct Trajectory {
  std::vector<Tensor> x, x0;
};
/// Runs the configured sampler, with its guidance, over `sigmas`; `x` is in the network's frame.
Trajectory run(const SchedulerConfig& config, std::shared_ptr<const Denoiser> denoiser, const Tensor& x, const std::vector<double>& sigmas,
               Noise& noise, const Condition& condition = {}, const ModelSource& models = no_models());

/// Noise that is the same at every draw.
class FixedNoise final : public Noise {
 public:
  explicit FixedNoise(double value) : value_(value) {}
  Tensor draw(const Tensor& like, double, double) override { return like.new_full(like.sizes(), value_); }

 private:
  double value_;
};

/// Expects numbers to be within tolerances and remembers the largest error as a share of its tolerance, by topic.
class Closeness {
 public:
  void near(double got, double wanted, double tolerance, const std::string& what);
  /// Every element, in row-major order; `wanted` may be the first few. Reports the worst.
  void near(const Tensor& got, const nlohmann::json& wanted, double tolerance, const std::string& what);
  /// The keys of `wanted` among first8, last4, sum, sum_abs, mean_abs: elements within `tolerance`, sums within that times
  /// the number of elements.
  void summary(const Tensor& got, const nlohmann::json& wanted, double tolerance, const std::string& what);
  /// The same with a tolerance of `relative` times the largest of the values at hand, plus `absolute`.
  void summary(const Tensor& got, const nlohmann::json& wanted, double relative, double absolute, const std::string& what);
  /// "name: N comparisons, worst error / tolerance 0.12 (what)" to the test's output.
  void print(const std::string& name) const;

 private:
  int64_t count_ = 0;
  double worst_ = 0;
  std::string where_;
};

/// `id` as a test's name.
std::string test_name(const std::string& id);

}  // namespace brume::test
