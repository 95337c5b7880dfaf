#pragma once
// The solvers of huggingface/diffusers said in brume's words: everything but DDPM and DDIM (parity_diffusers.h).
#include <algorithm>
#include <optional>
#include <utility>

#include "support/parity_diffusers.h"

namespace brume::test {

/// The noise schedule of a diffusers configuration as brume's YAML. Sets `unsupported` if brume has none.
std::string diffusers_noise_yaml(const nlohmann::json& config, double max_sigma, std::string& unsupported);

/// sigma of flow matching's time, which is capped at 1e6.
inline double flow_sigma(double s) { return std::min(s / std::max(1 - s, 1e-300), 1e6); }

/// Remembers the last draw until it is taken.
class RecordingNoise final : public Noise {
 public:
  explicit RecordingNoise(Noise& inner) : inner_(inner) {}
  /// diffusers draws nothing if churn adds nothing.
  Tensor draw(const Tensor& like, double from, double to) override {
    return from == to ? like.new_zeros(like.sizes()) : last_ = inner_.draw(like, from, to);
  }
  Tensor take() { return std::exchange(last_, Tensor()); }

 private:
  Noise& inner_;
  Tensor last_;
};

/// Asks the network before x is raised by churn, as diffusers' Euler schedulers do: their step() raises x after the network's call.
struct LateChurn {
  RecordingNoise* noise = nullptr;
  std::vector<double> levels;  ///< sigma of each call, before it is raised
  double s_noise = 1;
  bool skip_of_level = false;  ///< c_skip and c_out are those of the level (EulerDiscreteScheduler for v), not of the raised sigma
};

/// Tells the network the reference's own times, one after another, and keeps every x it was asked at.
class RecordingDenoiser final : public Denoiser {
 public:
  RecordingDenoiser(ScriptedNetwork network, const SchedulerConfig& config, std::vector<double> told);
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override;

  struct Call {
    Tensor x;
    double sigma;
  };
  mutable std::vector<Call> calls;
  /// The x that is handed on is the scaled one, as diffusers' own tests have it (recipe E).
  bool replace_x = false;
  /// The network receives x itself, not c_in x.
  bool unscaled = false;
  std::optional<LateChurn> churn;

 private:
  ScriptedNetwork network_;
  const SchedulerConfig& config_;
  std::vector<double> told_;
};

struct SolverRequest {
  std::string scheduler;
  nlohmann::json config;  ///< absent keys take diffusers' defaults
  int64_t steps = 0;
  nlohmann::json set_timesteps = nlohmann::json::object(), step = nlohmann::json::object();  ///< their other arguments
  std::vector<double> told{};  ///< the reference's timesteps: what the network receives at each call
  int64_t start = 0;           ///< the call a run begins with
  /// The reference's own sigmas, rounded as its float32 tables have them; taken instead of brume's if they agree to 2e-4 (2e-3 at the
  /// largest of the cosine schedule).
  std::vector<double> rounded_sigmas{};
  bool unscaled = false;    ///< scale_model_input is never called
  bool every_call = false;  ///< ScoreSdeVe: x after every correction, too
};

class DiffusersSolver {
 public:
  explicit DiffusersSolver(const SolverRequest& request);
  const std::string& unsupported() const { return unsupported_; }
  const std::string& yaml() const { return yaml_; }
  const SchedulerConfig& config() const { return config_; }
  /// Factor of x between brume's frame and the one the reference keeps it in.
  double frame(double sigma) const { return sigma_frame_ ? 1 : config_.signal(sigma); }
  /// x0 + noise at the level of the call a run begins with, in the reference's frame (add_noise).
  Tensor noisy(const Tensor& x0, const Tensor& noise) const;
  /// x after every call of `step`, in the reference's frame; `x` is its start. `replace_x`: recipe E of diffusers' tests.
  std::vector<Tensor> run(const ScriptedNetwork& network, const Tensor& x, Noise& noise, bool replace_x = false) const;
  static bool knows(const std::string& scheduler);

 private:
  template <class T>
  T get(const char* key, T otherwise) const {
    const auto it = request_.config.find(key);
    return it == request_.config.end() || it->is_null() ? otherwise : it->template get<T>();
  }
  bool is(const char* prefix) const { return request_.scheduler.starts_with(prefix); }
  bool flag(const char* key) const { return get(key, false); }
  void read();
  std::string sampler_yaml();
  /// The distinct times of the calls, descending.
  std::vector<double> config_times() const;
  std::string multistep_yaml(const char* plain, const char* noise);
  std::string parameterization_yaml() const;
  std::string guidance_yaml() const;
  std::string noise_yaml();
  std::string final_yaml() const;
  std::string spacing_yaml();
  std::string curve_yaml(const std::string& plain) const;
  std::string flow_spacing_yaml() const;
  std::string consistency_spacing_yaml() const;
  bool chains() const;
  bool clips_lambda() const {
    return leaves_lowest_out_ && request_.config.contains("lambda_min_clipped") && request_.config["lambda_min_clipped"].is_number();
  }
  int64_t skipped_steps() const;
  std::string custom_sigmas_yaml(const std::vector<double>& sigmas) const;
  std::vector<Tensor> run_linear(const ScriptedNetwork& network, const Tensor& x, Noise& noise) const;
  std::vector<Tensor> run_groups(const ScriptedNetwork& network, Tensor x, Noise& noise) const;
  std::vector<Tensor> run_begun(const ScriptedNetwork& network, const Tensor& x, Noise& noise) const;
  std::vector<Tensor> run_torn(const ScriptedNetwork& network, const Tensor& x, Noise& noise) const;
  std::vector<Tensor> run_langevin(const ScriptedNetwork& network, const Tensor& x, Noise& noise) const;
  std::vector<Tensor> run_replacing(const RecordingDenoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Noise& noise) const;
  std::vector<double> run_sigmas() const;
  void take_rounded(std::vector<double>& sigmas) const;

  SolverRequest request_;
  int64_t steps_ = 0, training_times_ = 1000;
  bool sigma_frame_ = false, two_calls_ = false, repeat_last_ = false, ends_by_table_ = false, leaves_lowest_out_ = false;
  std::string unsupported_, yaml_;
  SchedulerConfig config_;
};

}  // namespace brume::test
