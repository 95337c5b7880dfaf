#include "support/parity_solvers.h"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace brume::test {
namespace {

using nlohmann::json;

const std::vector<std::string> sigma_families{"Euler", "Heun", "LMS", "KDPM2", "DPMSolverSDE", "EDM", "CMStochastic", "ScoreSdeVe"};
const std::vector<std::string> half_log_families{"DPMSolverMultistep", "DPMSolverSinglestep", "DEIS", "UniPC", "SASolver"};
const std::vector<std::string> time_families{"PNDM", "LCM", "TCD", "IPNDM", "FlowMatch"};

bool among(const std::vector<std::string>& families, const std::string& scheduler) {
  return std::any_of(families.begin(), families.end(), [&](const std::string& f) { return scheduler.starts_with(f); });
}

class EverySecond final : public Noise {
 public:
  explicit EverySecond(Noise& inner) : inner_(inner) {}
  Tensor draw(const Tensor& like, double from, double to) override {
    inner_.draw(like, from, to);
    return inner_.draw(like, from, to);
  }

 private:
  Noise& inner_;
};

double flow_sigma(double s) { return std::min(s / std::max(1 - s, 1e-300), 1e6); }

}  // namespace

std::string diffusers_noise_yaml(const json& config, double max_sigma, std::string& unsupported) {
  const auto get = [&](const char* key, auto otherwise) {
    const auto it = config.find(key);
    return it == config.end() || it->is_null() ? otherwise : it->get<decltype(otherwise)>();
  };
  const int64_t times = get("num_train_timesteps", int64_t(1000));
  const std::string name = get("beta_schedule", std::string("linear"));
  std::string noise;
  if (const auto trained = get("trained_betas", std::vector<double>{}); !trained.empty())
    noise = fmt::format("{{type: betas, betas: [{}]}}", fmt::join(trained, ", "));
  else if (name == "squaredcos_cap_v2" || name == "exp")
    noise = fmt::format("{{type: {}, timesteps: {}}}", name == "exp" ? "exponential" : "cosine", times);
  else if (name == "linear" || name == "scaled_linear" || name == "sigmoid")
    noise = fmt::format("{{type: {}, timesteps: {}, beta_start: {}, beta_end: {}}}", name, times, get("beta_start", 1e-4),
                        get("beta_end", 0.02));
  else
    unsupported = "no noise schedule " + name;
  if (!get("rescale_betas_zero_snr", false)) return noise;
  return fmt::format("{{type: zero_terminal_snr, max_sigma: {}, schedule: {}}}", max_sigma, noise);
}

RecordingDenoiser::RecordingDenoiser(ScriptedNetwork network, const SchedulerConfig& config, std::vector<double> told)
    : network_(std::move(network)), config_(config), told_(std::move(told)) {}

Estimate RecordingDenoiser::denoise(const Tensor& x, double sigma, const Condition&) const {
  const Parameterization& q = *config_.parameterization;
  if (calls.size() >= told_.size()) throw std::runtime_error("the sampler asks more often than the reference");
  const double t = told_[calls.size()], c_in = q.c_in(sigma, *config_.noise);
  calls.push_back({x, sigma});
  const Tensor input = x * c_in, f = network_(input, t);
  Estimate d;
  if (replace_x) {
    // The step continues from the scaled x: the slope is that of the scaled x, wherever the sampler measures it from.
    d.x0 = x - input + (input * q.c_skip(sigma) + f * q.c_out(sigma));
  } else {
    d.x0 = x * q.c_skip(sigma) + f * q.c_out(sigma);
  }
  return d;
}

template <class T>
T DiffusersSolver::get(const char* key, T otherwise) const {
  const auto it = request_.config.find(key);
  return it == request_.config.end() || it->is_null() ? otherwise : it->get<T>();
}

bool DiffusersSolver::knows(const std::string& scheduler) {
  return among(sigma_families, scheduler) || among(half_log_families, scheduler) || among(time_families, scheduler);
}

DiffusersSolver::DiffusersSolver(const SolverRequest& request) : request_(request) {
  if (!knows(request.scheduler)) {
    unsupported_ = request.scheduler + " is not said in brume's words here";
    return;
  }
  training_times_ = get<int64_t>("num_train_timesteps", 1000);
  sigma_frame_ = among(sigma_families, request.scheduler);
  leaves_lowest_out_ = among(half_log_families, request.scheduler);
  two_calls_ = is("Heun") || is("KDPM2") || is("DPMSolverSDE") || is("FlowMatchHeun");
  const auto custom = request.set_timesteps.value("timesteps", std::vector<double>());
  steps_ = !custom.empty() ? int64_t(custom.size()) : request.steps;
  read();
}

void DiffusersSolver::read() {
  const std::string noise = noise_yaml(), sampler = sampler_yaml();
  if (!unsupported_.empty()) return;
  const auto text = [&](const std::string& spacing) {
    return fmt::format("noise: {}\nparameterization: {}\nsample:\n  sampler: {}\n  spacing: {}\n  steps: {}\n  guidance: {}\n", noise,
                       parameterization_yaml(), sampler, spacing, steps_, guidance_yaml());
  };
  // The curves of diffusers run between the ends of the plain spacing.
  const std::string plain = spacing_yaml();
  config_ = read_scheduler(yaml_ = text(plain));
  if (const std::string curve = curve_yaml(plain); curve != plain) config_ = read_scheduler(yaml_ = text(curve));
}

std::string DiffusersSolver::noise_yaml() {
  const double lo = get("sigma_min", 0.002), hi = get("sigma_max", 80.0);
  if (is("EDM")) return fmt::format("{{type: edm, sigma_min: {}, sigma_max: {}, rho: {}}}", lo, hi, get("rho", 7.0));
  if (is("CMStochastic")) return fmt::format("{{type: edm, sigma_min: {}, sigma_max: {}, rho: {}}}", lo, hi, get("rho", 7.0));
  if (is("ScoreSdeVe")) return fmt::format("{{type: ve, sigma_min: {}, sigma_max: {}}}", get("sigma_min", 0.01), get("sigma_max", 1348.0));
  if (is("FlowMatch") || flag("use_flow_sigmas")) return "{type: flow, t_min: 1.0e-06}";
  if (is("IPNDM")) return "{type: angle, min_signal: 1.0e-06, max_signal: 0.999999999}";
  return diffusers_noise_yaml(request_.config, 4096, unsupported_);
}

std::string DiffusersSolver::parameterization_yaml() const {
  if (is("ScoreSdeVe")) return "eps";
  if (is("CMStochastic"))
    return fmt::format("{{type: consistency, sigma_min: {}, sigma_data: {}}}", get("sigma_min", 0.002), get("sigma_data", 0.5));
  const std::string name = get<std::string>("prediction_type", is("FlowMatch") ? "flow_prediction"
                                                               : is("IPNDM")   ? "v_prediction"
                                                                               : "epsilon");
  if (is("EDM"))
    return fmt::format("{{type: edm, sigma_data: {}, prediction: {}}}", get("sigma_data", 0.5), name == "epsilon" ? "eps" : "v");
  return name == "epsilon" ? "eps" : name == "sample" ? "x0" : name == "flow_prediction" ? "flow" : "v";
}

std::string DiffusersSolver::multistep_yaml(const char* plain, const char* noise) {
  const std::string algorithm = get<std::string>("algorithm_type", "dpmsolver++");
  const bool data = algorithm.ends_with("++"), sde = algorithm.starts_with("sde");
  std::string text =
      fmt::format("{{type: {}, order: {}, solver: {}, eta: {}, lower_order_final: {}", data ? plain : noise,
                  get<int64_t>("solver_order", 2), get<std::string>("solver_type", "midpoint"), int(sde), get("lower_order_final", true));
  if (!is("DPMSolverSinglestep")) text += fmt::format(", euler_at_final: {}", flag("euler_at_final"));
  return text + "}";
}

std::vector<double> DiffusersSolver::config_times() const {
  std::vector<double> times = request_.told;
  std::sort(times.rbegin(), times.rend());
  times.erase(std::unique(times.begin(), times.end()), times.end());
  if (!flag("skip_prk_steps"))  // without the midpoints of the Runge-Kutta steps
    std::erase_if(times, [&](double t) { return std::fmod(times.front() - t, double(training_times_ / steps_)) != 0; });
  return times;
}

/// Whether every step of PNDM, which goes T div n back whatever the next timestep is, ends at the next timestep.
bool DiffusersSolver::chains() const {
  const std::vector<double> times = config_times();
  for (size_t i = 1; i < times.size(); ++i)
    if (times[i - 1] - times[i] != double(training_times_ / steps_)) return false;
  return true;
}

std::string DiffusersSolver::sampler_yaml() {
  const int64_t order = get<int64_t>("solver_order", 2);
  const bool lower = get("lower_order_final", true);
  if (is("EulerAncestral")) return "euler_ancestral";
  if (is("Euler") || is("EDMEuler"))
    return fmt::format("{{type: euler, s_churn: {}, s_tmin: {}, s_noise: {}}}", request_.step.value("s_churn", 0.0),
                       request_.step.value("s_tmin", 0.0), request_.step.value("s_noise", 1.0));
  if (is("Heun")) return "heun";
  if (is("KDPM2Ancestral")) return "dpm_2_ancestral";
  if (is("KDPM2")) return "dpm_2";
  if (is("LMS")) return fmt::format("{{type: lms, order: {}}}", request_.step.value("order", 4));
  if (is("DPMSolverSDE")) return "dpmpp_sde";
  if (is("DPMSolverMultistep") || is("EDMDPMSolverMultistep")) return multistep_yaml("dpmpp_multistep", "dpm_solver_multistep");
  if (is("DPMSolverSinglestep")) return multistep_yaml("dpmpp_singlestep", "dpm_solver_singlestep");
  if (is("DEIS")) return fmt::format("{{type: deis, order: {}, lower_order_final: {}}}", order, lower);
  if (is("UniPC"))
    return fmt::format("{{type: unipc, order: {}, solver: {}, prediction: {}, lower_order_final: {}, disable_corrector: [{}]}}", order,
                       get<std::string>("solver_type", "bh2"), get("predict_x0", true) ? "data" : "noise", lower,
                       fmt::join(get("disable_corrector", std::vector<int64_t>{}), ", "));
  if (is("SASolver"))
    return fmt::format("{{type: sa_solver, predictor_order: {}, corrector_order: {}, lower_order_final: {}}}",
                       get<int64_t>("predictor_order", 2), get<int64_t>("corrector_order", 2), lower);
  if (is("PNDM") && !chains() &&
      (!flag("skip_prk_steps") || get<std::string>("prediction_type", "epsilon") == "v_prediction" ||
       config_times()[0] - config_times()[1] != double(training_times_ / steps_)))
    unsupported_ = "Runge-Kutta or v steps that do not begin where the one before ended";
  if (is("PNDM"))
    return fmt::format("{{type: {}, combine: {}}}", flag("skip_prk_steps") ? "plms" : "pndm",
                       get<std::string>("prediction_type", "epsilon") == "v_prediction" ? "v" : "noise");
  if (is("IPNDM")) return "ipndm";
  if (is("LCM")) return fmt::format("{{type: lcm, timestep_scaling: {}}}", get("timestep_scaling", 10.0));
  if (is("TCD")) return fmt::format("{{type: tcd, eta: {}}}", request_.step.value("eta", 0.3));
  if (is("ScoreSdeVe"))
    return fmt::format("{{type: predictor_corrector, norms: batch, snr: {}, corrections: {}}}", get("snr", 0.15),
                       get<int64_t>("correct_steps", 1));
  if (is("FlowMatchHeun")) return "{type: heun, time: flow, scale: flow}";
  if (is("FlowMatchLCM") || is("CMStochastic") || flag("stochastic_sampling"))
    return fmt::format("{{type: consistency, s_noise: {}}}", get("s_noise", 1.0));
  return "euler";
}

std::string DiffusersSolver::guidance_yaml() const {
  if (flag("thresholding"))
    return fmt::format("[{{type: dynamic_threshold, quantile: {}, maximum: {}}}]", get("dynamic_thresholding_ratio", 0.995),
                       get("sample_max_value", 1.0));
  if (flag("clip_sample") || (is("CMStochastic") && get("clip_denoised", true)))
    return fmt::format("[{{type: clip, range: {}}}]", get("clip_sample_range", 1.0));
  return "[]";
}

std::string DiffusersSolver::final_yaml() const {
  if (is("PNDM")) return flag("set_alpha_to_one") ? "zero" : "minimum";
  if (is("LCM")) return get("set_alpha_to_one", true) ? "zero" : "minimum";
  if (is("TCD")) return "minimum";  // its last step goes to t = 0 whatever set_alpha_to_one says
  if (is("DEIS") || is("SASolver") || is("CMStochastic")) return "minimum";
  return get<std::string>("final_sigmas_type", "zero") == "zero" ? "zero" : "minimum";
}

/// The spacing in training time, before any curve.
std::string DiffusersSolver::spacing_yaml() {
  const std::string end = final_yaml();
  if (is("FlowMatchEuler")) return flow_spacing_yaml();
  if (is("FlowMatch") || is("IPNDM")) return told_spacing_yaml();
  if (is("CMStochastic")) return consistency_spacing_yaml();
  if (is("ScoreSdeVe")) return "{type: exponential, final: zero}";
  if (is("EDM")) return fmt::format("{{type: {}, final: {}}}", get<std::string>("sigma_schedule", "karras"), end);
  if (flag("use_flow_sigmas")) {
    repeat_last_ = end == "minimum";
    // UniPC runs from s = 1 - 1e-6 to 1 / T, the others from 1 - 1 / T to 0; the lowest is left out.
    const double t = 1 / double(training_times_);
    return fmt::format("{{type: flow, shift: {}, s_max: {}, s_min: {}, inclusive: false, final: {}}}", get("flow_shift", 1.0),
                       is("UniPC") ? 1 : 1 - t, is("UniPC") ? t : 0, end);
  }
  if (const auto custom = request_.set_timesteps.value("timesteps", std::vector<double>()); !custom.empty())
    return fmt::format("{{type: explicit, times: [{}], final: {}}}", fmt::join(custom, ", "), end);
  if (is("LCM") || is("TCD"))
    return fmt::format("{{type: lcm, original_steps: {}, final: {}}}",
                       request_.set_timesteps.value("original_inference_steps", get<int64_t>("original_inference_steps", 50)), end);
  const bool linspace_by_default = sigma_frame_ || leaves_lowest_out_;
  const std::string name = get<std::string>("timestep_spacing", linspace_by_default ? "linspace" : "leading");
  const std::string lowest = leaves_lowest_out_ && name != "trailing" ? ", inclusive: false" : "";
  if (name == "leading") return fmt::format("{{type: leading, offset: {}, final: {}{}}}", get<int64_t>("steps_offset", 0), end, lowest);
  if (name == "linspace" && sigma_frame_) return fmt::format("{{type: linspace, round: false, between: sigma, final: {}}}", end);
  return fmt::format("{{type: {}, final: {}{}}}", name, end, lowest);
}

/// karras and its like, between the ends of the spacing (k-diffusion's schedulers) or of the table (DPM-Solver's).
std::string DiffusersSolver::curve_yaml(const std::string& plain) const {
  if (is("FlowMatch") || flag("use_flow_sigmas")) return plain;
  const std::string name = flag("use_karras_sigmas")        ? "karras"
                           : flag("use_exponential_sigmas") ? "exponential"
                           : flag("use_beta_sigmas")        ? "beta"
                           : flag("use_lu_lambdas")         ? "exponential"
                                                            : "";
  if (name.empty()) return plain;
  double hi = config_.noise->sigma(config_.noise->t_max()), lo = config_.noise->sigma(config_.noise->t_min());
  if (sigma_frame_) {
    const std::vector<double> spaced = config_.sigmas();
    hi = get("sigma_max", spaced.front()), lo = get("sigma_min", spaced[spaced.size() - 2]);
  }
  return fmt::format("{{type: {}, sigma_min: {}, sigma_max: {}, final: {}}}", name, lo, hi, final_yaml());
}

std::string DiffusersSolver::flow_spacing_yaml() const {
  const double t = 1 / double(training_times_), shift = get("shift", 1.0);
  const bool dynamic = flag("use_dynamic_shifting");
  double s_min = t, effective = shift;
  if (dynamic) {
    const double mu = request_.set_timesteps.value("mu", 0.0);
    effective = get<std::string>("time_shift_type", "exponential") == "exponential" ? std::exp(mu) : mu;
  } else {
    s_min = shift * t / (1 + (shift - 1) * t);  // its smallest sigma is shifted once before the spacing shifts it again
  }
  const std::string curve = flag("use_karras_sigmas")        ? "karras"
                            : flag("use_exponential_sigmas") ? "exponential"
                            : flag("use_beta_sigmas")        ? "beta"
                                                             : "linear";
  std::string text = fmt::format("{{type: flow, shift: {}, s_max: 1, s_min: {}, curve: {}", effective, s_min, curve);
  if (get("shift_terminal", 0.0) > 0) text += fmt::format(", terminal: {}", get("shift_terminal", 0.0));
  return text + "}";
}

/// Its ramp counts the training times from the noisy end.
std::string DiffusersSolver::consistency_spacing_yaml() const {
  std::vector<double> times = request_.set_timesteps.value("timesteps", std::vector<double>());
  std::sort(times.begin(), times.end());
  if (times.empty())
    for (int64_t i = 0; i < steps_; ++i) times.push_back(double(i * (training_times_ / steps_)));
  const double rho = get("rho", 7.0), hi = std::pow(get("sigma_max", 80.0), 1 / rho), lo = std::pow(get("sigma_min", 0.002), 1 / rho);
  std::vector<double> sigmas;
  for (const double t : times) sigmas.push_back(std::pow(hi + t / double(training_times_ - 1) * (lo - hi), rho));
  return fmt::format("{{type: explicit, sigmas: [{}], final: minimum}}", fmt::join(sigmas, ", "));
}

/// By what the network is told: s times the number of training times, or the angle in right angles.
std::string DiffusersSolver::told_spacing_yaml() const {
  std::vector<double> sigmas;
  for (size_t i = 0; i < request_.told.size(); ++i) {
    if (two_calls_ && i > 0 && i % 2 == 0) continue;
    const double t = request_.told[i];
    sigmas.push_back(is("IPNDM") ? std::min(std::tan(t * M_PI / 2), 999999.0) : flow_sigma(t / double(training_times_)));
    if (t < 0) sigmas.back() = 1e6;
  }
  return fmt::format("{{type: explicit, sigmas: [{}], final: zero}}", fmt::join(sigmas, ", "));
}

void DiffusersSolver::take_rounded(std::vector<double>& sigmas) const {
  std::vector<double> rounded = request_.rounded_sigmas;
  if (is("FlowMatch") || is("IPNDM") || rounded.empty()) return;
  rounded.erase(std::unique(rounded.begin(), rounded.end()), rounded.end());
  if (rounded.size() != sigmas.size()) return;
  for (size_t i = 0; i < sigmas.size(); ++i) EXPECT_NEAR(sigmas[i], rounded[i], 2e-4 * rounded[i]) << "sigma " << i;
  sigmas = rounded;
}

std::vector<double> DiffusersSolver::run_sigmas() const {
  std::vector<double> sigmas = config_.sigmas();
  if (is("DPMSolverMultistepInverse")) {
    sigmas.clear();
    for (const double t : request_.told) sigmas.push_back(config_.noise->sigma(t));
    sigmas.push_back(config_.noise->sigma(double(training_times_ - 1)));
    return sigmas;
  }
  if (repeat_last_) sigmas.back() = sigmas[sigmas.size() - 2];
  // diffusers keeps s = sigma / (1 + sigma) in float32, and 1 - s loses digits near s = 1.
  if (is("FlowMatch") || flag("use_flow_sigmas"))
    for (double& s : sigmas) s = s < 1e6 || !is("UniPC") ? flow_sigma(double(float(s / (1 + s)))) : flow_sigma(double(float(1 - 1e-6)));
  take_rounded(sigmas);
  const int64_t skipped = two_calls_ ? (request_.start + 1) / 2 : request_.start;
  sigmas.erase(sigmas.begin(), sigmas.begin() + skipped);
  return sigmas;
}

Tensor DiffusersSolver::noisy(const Tensor& x0, const Tensor& noise) const {
  const double sigma = run_sigmas().front();
  return (x0 + noise * sigma) * frame(sigma);
}

std::vector<Tensor> DiffusersSolver::run(const ScriptedNetwork& network, const Tensor& x, Noise& noise, bool replace_x) const {
  if (is("ScoreSdeVe")) return run_langevin(network, x, noise);
  if (is("PNDM") && !chains()) return run_torn(network, x, noise);
  if (is("LMS") && request_.start > 0) return run_begun(network, x, noise);
  const std::vector<double> sigmas = run_sigmas();
  const auto recorder = std::make_shared<RecordingDenoiser>(
      network, config_, std::vector<double>(request_.told.begin() + request_.start, request_.told.end()));
  recorder->replace_x = replace_x;
  if (replace_x) return run_replacing(*recorder, x, sigmas, noise);
  std::shared_ptr<const Denoiser> denoiser = recorder;
  for (const auto& g : config_.sample.guidance) denoiser = g->wrap(denoiser, {config_.noise, no_models()});
  const Condition none;
  EverySecond second(noise);  // KDPM2Ancestral draws at every call and uses what it draws at the second of a step
  Run run{none, is("KDPM2Ancestral") ? second : noise, {}, config_.noise.get()};
  const Tensor last = config_.sample.sampler->sample(*denoiser, x / frame(sigmas.front()), sigmas, run);
  std::vector<Tensor> seen;
  for (size_t k = 1; k < recorder->calls.size(); ++k) seen.push_back(recorder->calls[k].x * frame(recorder->calls[k].sigma));
  seen.push_back(last * frame(sigmas.back()));
  return seen;
}

/// Step by step, x scaled before each: possible for samplers that remember nothing between steps.
std::vector<Tensor> DiffusersSolver::run_replacing(const RecordingDenoiser& denoiser, Tensor x, const std::vector<double>& sigmas,
                                                   Noise& noise) const {
  const Condition none;
  std::vector<Tensor> seen;
  for (size_t i = 0; i + 1 < sigmas.size(); ++i) {
    EverySecond second(noise);
    Run run{none, is("KDPM2Ancestral") ? second : noise, {}, config_.noise.get()};
    const double c_in = config_.parameterization->c_in(sigmas[i], *config_.noise);
    const size_t before = denoiser.calls.size();
    // The sampler starts from the scaled x; its first call must not scale again, which undoing it here achieves.
    class First final : public Denoiser {
     public:
      First(const RecordingDenoiser& inner, double scale) : inner_(inner), scale_(scale) {}
      Estimate denoise(const Tensor& y, double sigma, const Condition& c) const override {
        if (asked_) return inner_.denoise(y, sigma, c);
        asked_ = true;
        Estimate d = inner_.denoise(y / scale_, sigma, c);
        d.x0 = d.x0 - y / scale_ + y;
        return d;
      }

     private:
      const RecordingDenoiser& inner_;
      double scale_;
      mutable bool asked_ = false;
    };
    x = config_.sample.sampler->sample(First(denoiser, c_in), x * c_in, {sigmas[i], sigmas[i + 1]}, run);
    for (size_t k = before + 1; k < denoiser.calls.size(); ++k) seen.push_back(denoiser.calls[k].x);
    seen.push_back(x);
  }
  return seen;
}

/// LMS begun midway weighs slopes it does not have, as if they were 0: the run begins three steps earlier, with an estimate that is x.
std::vector<Tensor> DiffusersSolver::run_begun(const ScriptedNetwork& network, const Tensor& x, Noise& noise) const {
  class Begun final : public Denoiser {
   public:
    Begun(const RecordingDenoiser& inner, double begin) : inner_(inner), begin_(begin) {}
    Estimate denoise(const Tensor& y, double sigma, const Condition& c) const override {
      if (sigma <= begin_) return inner_.denoise(y, sigma, c);
      Estimate d;
      d.x0 = y;
      return d;
    }

   private:
    const RecordingDenoiser& inner_;
    double begin_;
  };
  const std::vector<double> sigmas = config_.sigmas();
  const size_t start = size_t(request_.start), from = start - std::min<size_t>(start, request_.step.value("order", size_t(4)) - 1);
  const RecordingDenoiser recorder(network, config_, {request_.told.begin() + int64_t(start), request_.told.end()});
  const Condition none;
  Run run{none, noise, {}, config_.noise.get()};
  const Tensor last =
      config_.sample.sampler->sample(Begun(recorder, sigmas[start]), x, {sigmas.begin() + int64_t(from), sigmas.end()}, run);
  std::vector<Tensor> seen;
  for (size_t k = 1; k < recorder.calls.size(); ++k) seen.push_back(recorder.calls[k].x);
  seen.push_back(last);
  return seen;
}

/// PNDM where a step ends at g, and the next takes that x to be at its own sigma: x changes by the factor c = signal(g) / signal(next).
/// y = x / (c_0 c_1 ...) then follows the sampler over a grid of its own, s' = s + (g - sigma) / (c_0 c_1 ...), with the same noise.
std::vector<Tensor> DiffusersSolver::run_torn(const ScriptedNetwork& network, const Tensor& x, Noise& noise) const {
  const std::vector<double> times = config_times();
  const double stride = double(training_times_ / steps_), last_sigma = config_.sigmas().back();
  const NoiseSchedule& schedule = *config_.noise;
  std::vector<double> real, grid, factor{1};
  for (const double t : times) real.push_back(schedule.sigma(t));
  real.push_back(last_sigma);
  grid.push_back(real[0]);
  for (size_t i = 0; i < times.size(); ++i) {
    const double g = times[i] >= stride ? schedule.sigma(times[i] - stride) : last_sigma;
    grid.push_back(grid[i] + (g - real[i]) / factor[i]);
    factor.push_back(factor[i] * config_.signal(g) / config_.signal(i + 1 < times.size() ? real[i + 1] : g));
  }
  class Torn final : public Denoiser {
   public:
    Torn(const RecordingDenoiser& inner, const std::vector<double>& grid, const std::vector<double>& real,
         const std::vector<double>& factor)
        : inner_(inner), grid_(grid), real_(real), factor_(factor) {}
    Estimate denoise(const Tensor& y, double s, const Condition& c) const override {
      const size_t i = size_t(std::find(grid_.begin(), grid_.end(), s) - grid_.begin());
      const Tensor here = y * factor_[i];
      Estimate d;
      d.x0 = y - (here - inner_.denoise(here, real_[i], c).x0) * (s / real_[i]);
      return d;
    }

   private:
    const RecordingDenoiser& inner_;
    const std::vector<double>&grid_, &real_, &factor_;
  };
  const RecordingDenoiser recorder(network, config_, request_.told);
  const Condition none;
  Run run{none, noise, {}, config_.noise.get()};
  const Tensor y = config_.sample.sampler->sample(Torn(recorder, grid, real, factor), x / config_.signal(real[0]), grid, run);
  std::vector<Tensor> seen;
  for (size_t k = 1; k < recorder.calls.size(); ++k) seen.push_back(recorder.calls[k].x * config_.signal(recorder.calls[k].sigma));
  const double end = times.back() >= stride ? schedule.sigma(times.back() - stride) : last_sigma;
  seen.push_back(y * (factor.back() * config_.signal(end)));
  return seen;
}

/// ScoreSdeVe: the network gives the score, and the last step adds noise too.
std::vector<Tensor> DiffusersSolver::run_langevin(const ScriptedNetwork& network, const Tensor& x, Noise& noise) const {
  const std::vector<double> sigmas = run_sigmas();
  class Score final : public Denoiser {
   public:
    Score(const ScriptedNetwork& network, const std::vector<double>& told, size_t calls) : network_(network), told_(told), calls_(calls) {}
    Estimate denoise(const Tensor& y, double sigma, const Condition&) const override {
      const size_t step = asked_ / calls_;
      if (asked_++ % calls_ == 0 && step > 0) seen.push_back(y);
      Estimate d;
      d.x0 = y + network_(y, told_.at(step)) * (sigma * sigma);
      return d;
    }
    mutable std::vector<Tensor> seen;

   private:
    const ScriptedNetwork& network_;
    const std::vector<double>& told_;
    size_t calls_;
    mutable size_t asked_ = 0;
  };
  const double lo = get("sigma_min", 0.01), hi = get("sigma_max", 1348.0);
  std::vector<double> told;
  for (const double t : request_.told) told.push_back(lo * std::pow(hi / lo, t));
  const Score denoiser(network, told, size_t(get<int64_t>("correct_steps", 1)) + 1);
  const Condition none;
  Run run{none, noise, {}, config_.noise.get()};
  Tensor last = config_.sample.sampler->sample(denoiser, x, sigmas, run);
  last = last + noise.draw(last, lo, 0) * sigmas[sigmas.size() - 2];
  std::vector<Tensor> seen = denoiser.seen;
  seen.push_back(last);
  return seen;
}

}  // namespace brume::test
