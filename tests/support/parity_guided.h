#pragma once
// A process of openai/guided-diffusion (and improved-diffusion) said in brume's words.
#include "support/parity.h"

namespace brume::test {

/// space_timesteps: the training times of a respacing ("25", "ddim25", "10,15,20"), ascending; all of them if it is empty.
std::vector<int64_t> space_timesteps(int64_t training_times, const std::string& respacing);

/// The noise schedule, "linear" (whose betas scale with 1000 / T) or "cosine".
std::string guided_noise(const std::string& schedule, int64_t training_times);

/// The spacing: one section is linspace; ddimN is leading, if N divides T; anything else is a list of times.
std::string guided_spacing(int64_t training_times, const std::string& respacing);

/// guided-diffusion's PREVIOUS_X: the network gives the mean of the next step, so what it means depends on the end of that step, and
/// no plugin can have it.
class PreviousX final : public Parameterization {
 public:
  explicit PreviousX(std::shared_ptr<const NoiseSchedule> noise) : noise_(std::move(noise)) {}
  double c_skip(double sigma) const override { return -keep(sigma) / (1 - keep(sigma)); }
  double c_out(double sigma) const override;

 private:
  double to(double sigma) const;
  double keep(double sigma) const { return to(sigma) / sigma * (to(sigma) / sigma); }
  std::shared_ptr<const NoiseSchedule> noise_;
};

/// A whole configuration. mean_type: EPSILON, START_X, PREVIOUS_X (whose mean guided-diffusion does not clip). var_type: FIXED_SMALL,
/// FIXED_LARGE, LEARNED, LEARNED_RANGE.
struct GuidedProcess {
  std::string schedule = "linear", mean_type = "EPSILON", var_type = "FIXED_SMALL";
  int64_t training_times = 1000;
  std::string respacing{};
  bool clip = false, ddim = false, cond = false;  ///< cond: classifier guidance, in the form that the sampler has
  double eta = 0;
};
SchedulerConfig read_guided(const GuidedProcess& process);

/// guided-diffusion's test network: mix(x, t), with log variances or their learned range if var_type asks for them.
ScriptedNetwork guided_network(const std::string& var_type);

/// The reference's cond_fn, as the classifier of which it is the gradient: in the network's frame, with the time that the network
/// receives,
///   log p(y | x) = -0.35 (1 + 0.001 t) |x - mu[y]|^2,   mu = 0.1, -0.4, 0.6, 0
class GuidedClassifier final : public NoisyClassifier {
 public:
  GuidedClassifier(std::shared_ptr<const NoiseSchedule> schedule, std::function<double(double)> time);
  Tensor log_probability(const Tensor& x, double sigma, const Tensor& classes) const override;
  const std::vector<std::string>& classes() const override { return names_; }
  ImageShape shape() const override { return {}; }

 private:
  std::shared_ptr<const NoiseSchedule> schedule_;
  std::function<double(double)> time_;
  std::vector<std::string> names_{"0", "1", "2", "3"};
};

}  // namespace brume::test
