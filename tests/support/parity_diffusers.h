#pragma once
// A scheduler of huggingface/diffusers said in brume's words: the noise schedule, spacing, parameterization, sampler and
// guidance that its configuration stands for, as the YAML a user would write.
#include "support/parity.h"

namespace brume::test {

/// What a reference asks of a scheduler in addition to its configuration.
struct DiffusersRequest {
  std::string scheduler;            ///< "DDPMScheduler", "DDIMScheduler", "DDIMInverseScheduler", "…ParallelScheduler"
  nlohmann::json config;            ///< absent keys take diffusers' defaults
  int64_t steps = 0;                ///< of set_timesteps; 0 = never called: every training time
  std::vector<double> timesteps{};  ///< custom ones, instead of steps
  double eta = 0;
  bool use_clipped_model_output = false;
  int64_t start = 0;           ///< the step a run begins with (image to image)
  bool beta_of_table = false;  ///< between neighbouring times beta is the table's, not 1 - alpha_t / alpha_to (UnCLIP)
};

/// One call of `step`: x goes from sigma `from` to `to`, and the network receives t.
struct Leg {
  double t, from, to;
};

/// Whether a run is to have diffusers' float32 rounding if that shows (below).
enum class Rounding { exact, as_diffusers };

class SchedulerInBrume {
 public:
  explicit SchedulerInBrume(const DiffusersRequest& request);
  /// Why the scheduler cannot be said in brume; empty if it can. Nothing below may be called if it is not.
  const std::string& unsupported() const { return unsupported_; }

  const std::string& yaml() const { return yaml_; }
  const SchedulerConfig& config() const { return config_; }
  /// The timesteps the network is asked at, in the order of the run.
  const std::vector<double>& timesteps() const { return times_; }
  /// The same as brume's own spacing has them.
  std::vector<double> spaced() const;
  const std::vector<Leg>& legs() const { return legs_; }
  bool inverse() const { return family_ == Family::ddim_inverse; }
  /// Whether every step begins at the end of the one before. If diffusers' do not (below), brume's own spacing is a better
  /// sampler, and parity needs the sampler driven over one pair of sigmas after another.
  bool chains() const;
  /// Whether the spacing is said by its name (leading, trailing, linspace) rather than as a list of times.
  bool named() const { return named_; }
  /// alphas_cumprod as diffusers has it: every operation in float32.
  const std::vector<float>& alphas() const { return alphas_; }
  /// Whether DDPM visits near training times. 1 - alpha_t / alpha_to in float32 is then off by up to 1 part in 2,000 (T steps),
  /// which is more than the references' tolerances: their rounding has to be added to brume's steps.
  bool rounds() const;
  /// x0 + sigma noise at a timestep, in the network's frame (add_noise).
  Tensor noisy(const Tensor& x0, const Tensor& noise, double t) const;
  /// The whole run from x in the network's frame.
  Trajectory run(const ScriptedNetwork& network, const Tensor& x, Noise& noise, Rounding rounding = Rounding::as_diffusers) const;

 private:
  enum class Family { ddpm, ddim, ddim_inverse };
  template <class T>
  T get(const char* key, T otherwise) const;
  std::string parameterization_yaml();
  std::string sampler_yaml();
  std::string spacing_yaml() const;
  std::string guidance_yaml() const;
  std::vector<double> reference_times() const;
  std::vector<double> trailing_times() const;
  void find_legs();
  /// Where diffusers' timesteps are not those of the spacing of their name: custom ones; linspace of one step, which is t = 0
  /// there; trailing if numpy's arange accumulates its error over a half.
  bool needs_list() const;
  Trajectory run_legs(const ScriptedNetwork& network, Tensor x, Noise& noise, bool rounded) const;
  void find_alphas();
  /// What diffusers' float32 coefficients make of a DDPM step, less what exact ones do.
  Tensor rounding(const Leg& leg, const Tensor& x, const Tensor& x0, const Tensor& noise) const;
  /// DDPM's step adds noise wherever t > 0, even if it ends at the clean image; brume's does not. `x` is the beginning of the run.
  void add_last_noise(Trajectory& trajectory, const ScriptedNetwork& network, const Tensor& x, Noise& noise) const;

  DiffusersRequest request_;
  Family family_;
  int64_t training_times_ = 1000, steps_ = 0;
  VarianceOutput variance_ = VarianceOutput::as_brume;
  std::string unsupported_, yaml_;
  bool named_ = true;
  SchedulerConfig config_;
  std::vector<double> times_;
  std::vector<Leg> legs_;
  std::vector<float> alphas_, betas_;
};

}  // namespace brume::test
