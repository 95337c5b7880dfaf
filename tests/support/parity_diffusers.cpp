#include "support/parity_solvers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cumprod.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace brume::test {
namespace {

/// The factors of x0, x and noise in a DDPM step between alphas_cumprod `a` and `to` with variance fixed_small, in the network's
/// frame and in the arithmetic of Real.
template <class Real>
struct Posterior {
  /// `by_beta`: alpha is 1 - beta, as UnCLIP has it; `of_table`: its beta between neighbouring times.
  Posterior(Real a, Real to, bool by_beta = false, std::optional<Real> of_table = {}) {
    const Real beta = of_table.value_or(1 - a / to), keep = by_beta ? 1 - beta : a / to, rest = 1 - a, rest_to = 1 - to;
    x0 = std::sqrt(to) * beta / rest;
    x = std::sqrt(keep) * rest_to / rest;
    noise = std::sqrt(rest_to / rest * beta);
  }
  Real x0, x, noise;
};

/// Remembers what it drew.
class Recorder final : public Noise {
 public:
  explicit Recorder(Noise& inner) : inner_(inner) {}
  Tensor draw(const Tensor& like, double from, double to) override { return last = inner_.draw(like, from, to); }
  Tensor last;

 private:
  Noise& inner_;
};

}  // namespace

template <class T>
T SchedulerInBrume::get(const char* key, T otherwise) const {
  const auto it = request_.config.find(key);
  return it == request_.config.end() || it->is_null() ? otherwise : it->get<T>();
}

SchedulerInBrume::SchedulerInBrume(const DiffusersRequest& request) : request_(request) {
  const std::string& name = request.scheduler;
  if (name == "DDIMInverseScheduler")
    family_ = Family::ddim_inverse;
  else
    family_ = name.starts_with("DDIM") ? Family::ddim : Family::ddpm;
  if (!name.starts_with("DDIM") && !name.starts_with("DDPM")) unsupported_ = name + " is neither DDPM nor DDIM";
  training_times_ = get<int64_t>("num_train_timesteps", 1000);
  if (const auto trained = get<std::vector<double>>("trained_betas", {}); !trained.empty()) training_times_ = int64_t(trained.size());
  const std::string noise = diffusers_noise_yaml(request.config, 1e6, unsupported_), parameterization = parameterization_yaml(),
                    sampler = sampler_yaml();
  if (!unsupported_.empty()) return;
  steps_ = !request.timesteps.empty() ? int64_t(request.timesteps.size()) : request.steps > 0 ? request.steps : training_times_;
  times_ = request.timesteps.empty() ? reference_times() : request.timesteps;
  steps_ = int64_t(times_.size());
  const auto text = [&](const std::string& spacing) {
    return fmt::format("noise: {}\nparameterization: {}\nsample:\n  sampler: {}\n  spacing: {}\n  steps: {}\n  guidance: {}\n", noise,
                       parameterization, sampler, spacing, steps_, guidance_yaml());
  };
  named_ = !needs_list();
  config_ = read_scheduler(yaml_ = text(spacing_yaml()));
  find_legs();
  find_alphas();
}

std::string SchedulerInBrume::parameterization_yaml() {
  const std::string name = get<std::string>("prediction_type", "epsilon");
  if (name == "epsilon") return "eps";
  if (name == "sample") return "x0";
  if (name != "v_prediction") unsupported_ = "no parameterization " + name;
  return "v";
}

std::string SchedulerInBrume::sampler_yaml() {
  if (family_ != Family::ddpm) return fmt::format("{{type: ddim, eta: {}}}", request_.eta);
  const std::string variance = get<std::string>("variance_type", "fixed_small");
  if (variance == "fixed_small" || variance == "fixed_small_log") return "{type: ddpm, variance: small}";
  if (variance == "fixed_large") return "{type: ddpm, variance: large}";
  if (variance == "learned") variance_ = VarianceOutput::plain;  // the network gives the variance; brume's takes its log
  if (variance != "learned" && variance != "learned_range") unsupported_ = "no variance " + variance;
  return fmt::format("{{type: ddpm, variance: {}}}", variance);
}

bool SchedulerInBrume::rounds() const {
  if (family_ != Family::ddpm) return false;
  for (size_t i = 1; i < times_.size(); ++i)
    if (times_[i - 1] - times_[i] < 20) return true;
  return request_.beta_of_table || training_times_ < 20 * steps_;
}

bool SchedulerInBrume::needs_list() const {
  const std::string name = get<std::string>("timestep_spacing", "leading");
  if (!request_.timesteps.empty()) return true;
  if (request_.steps == 0 || name == "leading") return false;
  if (name == "linspace") return steps_ == 1;
  for (int64_t i = 0; i < steps_; ++i) {
    const double exact = double(training_times_) - double(i * training_times_) / double(steps_);
    if (std::nearbyint(exact) - 1 != times_[size_t(inverse() ? steps_ - 1 - i : i)]) return true;
  }
  return false;
}

std::string SchedulerInBrume::spacing_yaml() const {
  const bool clean = family_ == Family::ddpm || get("set_alpha_to_one", true);
  const std::string name = get<std::string>("timestep_spacing", "leading"), end = clean ? "zero" : "minimum";
  if (named_ && request_.steps > 0 && name != "leading") return fmt::format("{{type: {}, final: {}}}", name, end);
  const int64_t offset = request_.steps > 0 ? get<int64_t>("steps_offset", 0) : 0;
  if (named_) return fmt::format("{{type: leading, offset: {}, final: {}}}", offset, end);
  std::vector<double> descending = times_;
  if (inverse()) std::reverse(descending.begin(), descending.end());
  return fmt::format("{{type: explicit, times: [{}], final: {}}}", fmt::join(descending, ", "), end);
}

std::string SchedulerInBrume::guidance_yaml() const {
  // DDIM takes the direction of the noise from the network's own output, unless use_clipped_model_output.
  const bool keep = family_ != Family::ddpm && !request_.use_clipped_model_output;
  if (get("thresholding", false) && !inverse())
    return fmt::format("[{{type: dynamic_threshold, quantile: {}, maximum: {}, keep_direction: {}}}]",
                       get("dynamic_thresholding_ratio", 0.995), get("sample_max_value", 1.0), keep);
  if (get("clip_sample", true)) return fmt::format("[{{type: clip, range: {}, keep_direction: {}}}]", get("clip_sample_range", 1.0), keep);
  return "[]";
}

/// numpy.arange(T, 0, -T / n), rounded, less one: its step is the rounded difference of its first two entries.
std::vector<double> SchedulerInBrume::trailing_times() const {
  const double first = double(training_times_), step = (first - first / double(steps_)) - first;
  std::vector<double> times;
  const auto count = int64_t(std::ceil(first / (first / double(steps_))));
  for (int64_t i = 0; i < count; ++i) times.push_back(std::nearbyint(first + double(i) * step) - 1);
  return times;
}

/// set_timesteps of diffusers 0.40.
std::vector<double> SchedulerInBrume::reference_times() const {
  const std::string name = get<std::string>("timestep_spacing", "leading");
  std::vector<double> times;
  if (request_.steps > 0 && name == "trailing") {
    times = trailing_times();
  } else {
    const bool linspace = request_.steps > 0 && name == "linspace";
    const double stride =
        linspace ? double(training_times_ - 1) / double(std::max<int64_t>(steps_ - 1, 1)) : double(training_times_ / steps_);
    const double offset = linspace || request_.steps == 0 ? 0 : double(get<int64_t>("steps_offset", 0));
    for (int64_t i = steps_; i-- > 0;) times.push_back(std::nearbyint(double(i) * stride) + offset);
  }
  if (inverse()) std::reverse(times.begin(), times.end());
  return times;
}

void SchedulerInBrume::find_legs() {
  const auto sigma = [&](double t) { return config_.noise->sigma(t); };
  const double stride = double(training_times_ / steps_), last = config_.sigmas().back();
  for (size_t i = 0; i < times_.size(); ++i) {
    const double t = times_[i];
    if (family_ == Family::ddpm) {
      legs_.push_back({t, sigma(t), i + 1 < times_.size() ? sigma(times_[i + 1]) : 0});
    } else if (family_ == Family::ddim) {
      // A step goes T div n back whatever the next timestep is: with linspace, and with trailing if n does not divide T,
      // that is another noise level than the one the next step takes x to be at.
      legs_.push_back({t, sigma(t), t >= stride ? sigma(t - stride) : last});
    } else {
      // The step that arrives at t, its network given t although x is still at the level before.
      legs_.push_back({t, t >= stride ? sigma(std::min(t - stride, double(training_times_ - 1))) : last, sigma(t)});
    }
  }
}

std::vector<double> SchedulerInBrume::spaced() const {
  std::vector<double> sigmas = config_.sigmas(), times;
  sigmas.pop_back();
  for (const double s : sigmas) times.push_back(config_.noise->time(s));
  if (inverse()) std::reverse(times.begin(), times.end());
  return times;
}

bool SchedulerInBrume::chains() const {
  for (size_t i = 1; i < legs_.size(); ++i)
    if (legs_[i].from != legs_[i - 1].to) return false;
  return true;
}

Tensor SchedulerInBrume::noisy(const Tensor& x0, const Tensor& noise, double t) const {
  const double sigma = config_.noise->sigma(t);
  return (x0 + noise * sigma) * config_.signal(sigma);
}

Trajectory SchedulerInBrume::run(const ScriptedNetwork& network, const Tensor& x, Noise& noise, Rounding rounding) const {
  const bool rounded = rounds() && rounding == Rounding::as_diffusers;
  if (inverse() || rounded || !chains()) return run_legs(network, x, noise, rounded);
  const std::vector<double> sigmas = config_.sigmas();
  Trajectory trajectory = test::run(config_, std::make_shared<ScriptedDenoiser>(network, config_, variance_), x,
                                    {sigmas.begin() + request_.start, sigmas.end()}, noise);
  add_last_noise(trajectory, network, x, noise);
  return trajectory;
}

Trajectory SchedulerInBrume::run_legs(const ScriptedNetwork& network, Tensor x, Noise& noise, bool rounded) const {
  Trajectory whole;
  // Inversion from the clean image: sigma must be above 0, and so small a one needs float64.
  constexpr double smallest = 1e-7;
  const bool clean = legs_.front().from == 0;
  if (clean) x = x.to(at::kDouble);
  Recorder recorder(noise);
  const Tensor start = x;
  for (size_t i = size_t(request_.start); i < legs_.size(); ++i) {
    const Leg& leg = legs_[i];
    const auto told = [&](double) { return leg.t; };
    const auto denoiser = std::make_shared<ScriptedDenoiser>(network, config_, variance_, told);
    const Trajectory step = test::run(config_, denoiser, x, {std::max(leg.from, smallest), leg.to}, recorder);
    whole.x0.push_back(step.x0.front());
    whole.x.push_back(rounded ? step.x.front() + rounding(leg, x, step.x0.front(), recorder.last) : step.x.front());
    x = whole.x.back();
  }
  add_last_noise(whole, network, start, noise);
  return whole;
}

void SchedulerInBrume::find_alphas() {
  const auto number = at::TensorOptions().dtype(at::kFloat);
  const std::string name = get<std::string>("beta_schedule", "linear");
  const auto trained = get<std::vector<double>>("trained_betas", {});
  const double first = get("beta_start", 1e-4), last = get("beta_end", 0.02);
  Tensor betas;
  if (!trained.empty())
    betas = at::tensor(trained, number);
  else if (name == "linear")
    betas = at::linspace(first, last, training_times_, number);
  else if (name == "scaled_linear")
    betas = at::linspace(std::sqrt(first), std::sqrt(last), training_times_, number).pow(2);
  else if (name == "sigmoid")
    betas = at::sigmoid(at::linspace(-6, 6, training_times_, number)) * (last - first) + first;
  else if (name == "exp") {
    std::vector<double> falling;
    for (int64_t t = 0; t < training_times_; ++t) falling.push_back(std::min(-std::expm1(-12.0 / double(training_times_)), 0.999));
    betas = at::tensor(falling, number);
  } else {
    std::vector<double> cosine;
    for (int64_t t = 0; t < training_times_; ++t) {
      const auto alpha_bar = [&](int64_t i) {
        return std::pow(std::cos((double(i) / double(training_times_) + 0.008) / 1.008 * M_PI / 2), 2);
      };
      cosine.push_back(std::min(1 - alpha_bar(t + 1) / alpha_bar(t), 0.999));
    }
    betas = at::tensor(cosine, number);
  }
  betas_.assign(betas.data_ptr<float>(), betas.data_ptr<float>() + training_times_);
  Tensor alphas = at::cumprod(1 - betas, 0);
  if (get("rescale_betas_zero_snr", false)) {  // by way of betas again, as there
    const Tensor roots = alphas.sqrt();
    const Tensor bars = ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))).pow(2);
    const Tensor ratios = at::cat({bars.slice(0, 0, 1), bars.slice(0, 1) / bars.slice(0, 0, -1)});
    alphas = at::cumprod(ratios, 0);
  }
  alphas_.assign(alphas.data_ptr<float>(), alphas.data_ptr<float>() + training_times_);
}

Tensor SchedulerInBrume::rounding(const Leg& leg, const Tensor& x, const Tensor& x0, const Tensor& noise) const {
  const NoiseSchedule& schedule = *config_.noise;
  const auto exact_alpha = [&](double sigma) { return 1 / (1 + sigma * sigma); };
  const double to = leg.to > 0 ? schedule.time(leg.to) : -1;
  const bool of_table = request_.beta_of_table && std::abs(to + 1 - leg.t) < 0.5;
  const Posterior<float> rounded(alphas_[size_t(leg.t)], leg.to > 0 ? alphas_[size_t(std::nearbyint(to))] : 1.0f, request_.beta_of_table,
                                 of_table ? std::optional(betas_[size_t(leg.t)]) : std::nullopt);
  const Posterior<double> exact(exact_alpha(leg.from), exact_alpha(leg.to));
  Tensor difference = x0 * (double(rounded.x0) - exact.x0) + x * (double(rounded.x) - exact.x);
  const std::string variance = get<std::string>("variance_type", "fixed_small");
  if (leg.to > 0 && variance.starts_with("fixed_small")) difference = difference + noise * (double(rounded.noise) - exact.noise);
  return difference;
}

void SchedulerInBrume::add_last_noise(Trajectory& trajectory, const ScriptedNetwork& network, const Tensor& x, Noise& noise) const {
  const Leg& leg = legs_.back();
  const std::string variance = get<std::string>("variance_type", "fixed_small");  // small is 1e-20 here: nothing
  if (family_ != Family::ddpm || leg.t == 0 || variance.starts_with("fixed_small")) return;
  Tensor& last = trajectory.x.back();
  const double beta = leg.from * leg.from / (1 + leg.from * leg.from);
  Tensor deviation = last.new_full({}, std::sqrt(beta));
  if (variance != "fixed_large") {
    const size_t n = trajectory.x.size();
    const Tensor learned = network(n > 1 ? trajectory.x[n - 2] : x, leg.t).narrow(1, last.size(1), last.size(1));
    const Tensor share = (learned + 1) * 0.5;
    deviation = variance == "learned" ? learned.sqrt() : ((share * std::log(beta) + (1 - share) * std::log(1e-20)) * 0.5).exp();
  }
  last = last + noise.draw(last, leg.from, leg.to) * deviation;
}

}  // namespace brume::test
