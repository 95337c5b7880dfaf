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
  steps_ = request.steps;
  if (const auto custom = request.set_timesteps.value("timesteps", std::vector<double>()); !custom.empty()) steps_ = int64_t(custom.size());
  if (const auto custom = request.set_timesteps.value("sigmas", std::vector<double>()); !custom.empty())
    steps_ = int64_t(custom.size()) - (is("FlowMatch") ? 0 : 1);
  if (is("DPMSolver") && request.config.value("algorithm_type", "").starts_with("sde") && get<int64_t>("solver_order", 2) == 3 &&
      (is("DPMSolverMultistep") || get<std::string>("solver_type", "midpoint") == "heun"))
    unsupported_ = "the third order of its SDE solvers, which has another sign than the integral";
  read();
}

void DiffusersSolver::read() {
  const std::string noise = noise_yaml(), sampler = sampler_yaml();
  if (flag("invert_sigmas")) unsupported_ = "inversion";
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
  if (is("IPNDM")) return "{type: angle, min_signal: 1.0e-06, max_signal: 0.999999999999}";
  if (is("Euler") && request_.set_timesteps.contains("sigmas"))  // beyond those of the table, too
    return "{type: angle, min_signal: 1.0e-06, max_signal: 0.999999999999}";
  const bool curve = flag("use_karras_sigmas") || flag("use_exponential_sigmas") || flag("use_beta_sigmas");
  if (get<std::string>("timestep_type", "discrete") == "continuous" && curve && request_.config.contains("sigma_max") &&
      request_.config["sigma_max"].is_number())  // any levels of a variance-preserving frame
    return "{type: angle, min_signal: 1.0e-06, max_signal: 0.999999999999}";
  return diffusers_noise_yaml(request_.config, is("TCD") || is("LCM") ? 1e6 : 4096, unsupported_);
}

std::string DiffusersSolver::parameterization_yaml() const {
  if (is("ScoreSdeVe")) return "score";
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
    return fmt::format("{{type: euler, s_churn: {}, s_tmin: {}, s_tmax: {}, s_noise: {}}}", request_.step.value("s_churn", 0.0),
                       request_.step.value("s_tmin", 0.0), request_.step.value("s_tmax", 1e9), request_.step.value("s_noise", 1.0));
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
    return fmt::format(
        "{{type: sa_solver, predictor_order: {}, corrector_order: {}, lower_order_final: {}, prediction: {}, tau_start: {}, tau_end: {}}}",
        get<int64_t>("predictor_order", 2), get<int64_t>("corrector_order", 2), lower,
        get<std::string>("algorithm_type", "data_prediction") == "data_prediction" ? "data" : "noise",
        std::min(1.0, 200 / double(training_times_)), std::min(1.0, 800 / double(training_times_)));
  if (is("PNDM") && !flag("skip_prk_steps") && get<std::string>("timestep_spacing", "leading") != "leading" &&
      (training_times_ % steps_ != 0 || get<std::string>("timestep_spacing", "") == "linspace"))
    unsupported_ = "Runge-Kutta steps that do not begin where the one before ended";
  if (is("PNDM") && !chains() &&
      (!flag("skip_prk_steps") || get<std::string>("prediction_type", "epsilon") == "v_prediction" ||
       config_times()[0] - config_times()[1] != double(training_times_ / steps_)))
    unsupported_ = "Runge-Kutta or v steps that do not begin where the one before ended";
  if (is("PNDM"))
    return fmt::format("{{type: {}, combine: {}}}", flag("skip_prk_steps") ? "plms" : "pndm",
                       get<std::string>("prediction_type", "epsilon") == "v_prediction" ? "v" : "noise");
  if (is("IPNDM")) return "{type: ipndm, zero_first: true}";
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
  if (is("TCD")) return "[]";                                // it has the keys, and reads none of them
  if (is("UniPC") && !get("predict_x0", true)) return "[]";  // likewise
  if (flag("thresholding"))
    return fmt::format("[{{type: dynamic_threshold, quantile: {}, maximum: {}}}]", get("dynamic_thresholding_ratio", 0.995),
                       get("sample_max_value", 1.0));
  if (flag("clip_sample") || (is("CMStochastic") && get("clip_denoised", true)))
    return fmt::format("[{{type: clip, range: {}}}]", get("clip_sample_range", 1.0));
  return "[]";
}

std::string DiffusersSolver::final_yaml() const {
  if (is("PNDM")) return flag("set_alpha_to_one") ? "zero" : "minimum";
  if (is("LCM")) return "zero";     // its last step leaves the estimate, whatever set_alpha_to_one says
  if (is("TCD")) return "minimum";  // its last step goes to t = 0 whatever set_alpha_to_one says
  if (is("DEIS") || is("SASolver") || is("CMStochastic")) return "minimum";
  return get<std::string>("final_sigmas_type", "zero") == "zero" ? "zero" : "minimum";
}

/// The spacing in training time, before any curve.
std::string DiffusersSolver::spacing_yaml() {
  const std::string end = final_yaml();
  if (const auto sigmas = request_.set_timesteps.value("sigmas", std::vector<double>()); !sigmas.empty()) return custom_sigmas_yaml(sigmas);
  const auto custom = request_.set_timesteps.value("timesteps", std::vector<double>());
  if (is("FlowMatch") && custom.empty()) return flow_spacing_yaml();
  if (is("IPNDM")) return "crash";
  if (is("FlowMatch")) {
    std::vector<double> sigmas = custom;
    for (double& s : sigmas) s /= double(training_times_);
    return custom_sigmas_yaml(sigmas);
  }
  if (is("CMStochastic")) return consistency_spacing_yaml();
  if (is("ScoreSdeVe")) return "{type: exponential, final: zero}";
  if (is("EDM") && get<std::string>("sigma_schedule", "karras") != "karras")
    return fmt::format("{{type: {}, final: {}}}", get<std::string>("sigma_schedule", ""), end);
  if (is("EDM")) return fmt::format("{{type: karras, rho: {}, final: {}}}", get("rho", 7.0), end);
  if (get<std::string>("interpolation_type", "linear") == "log_linear" && !flag("use_karras_sigmas") && !flag("use_exponential_sigmas") &&
      !flag("use_beta_sigmas"))
    return "{type: exponential, inclusive: false, final: minimum}";  // one level more than steps, the last of which the run ends at
  if (flag("use_flow_sigmas")) {
    repeat_last_ = end == "minimum" && !is("DPMSolver");
    ends_by_table_ = end == "minimum" && is("DPMSolver");
    // UniPC runs from s = 1 - 1e-6, after the shift, to 1 / T, the others from 1 - 1 / T to 0; the lowest is left out.
    const double t = 1 / double(training_times_), shift = get("flow_shift", 1.0), top = 1 - 1e-6;
    return fmt::format("{{type: flow, shift: {}, s_max: {}, s_min: {}, inclusive: false, final: {}}}", shift,
                       is("UniPC") ? top / (shift - (shift - 1) * top) : 1 - t, is("UniPC") ? t : 0, end);
  }
  if (is("TCD") && request_.set_timesteps.contains("original_inference_steps"))  // even steps then, whatever their number
    return fmt::format("{{type: explicit, times: [{}], final: {}}}", fmt::join(request_.told, ", "), end);
  if (!custom.empty()) return fmt::format("{{type: explicit, times: [{}], final: {}}}", fmt::join(custom, ", "), end);
  if (is("LCM") || is("TCD"))
    return fmt::format("{{type: lcm, original_steps: {}, share: {}, final: {}}}",
                       request_.set_timesteps.value("original_inference_steps", get<int64_t>("original_inference_steps", 50)),
                       request_.set_timesteps.value("strength", 1.0), end);
  const bool linspace_by_default = sigma_frame_ || leaves_lowest_out_;
  const std::string name = get<std::string>("timestep_spacing", linspace_by_default ? "linspace" : "leading");
  std::string lowest = leaves_lowest_out_ && name != "trailing" ? ", inclusive: false" : "";
  if (clips_lambda()) {
    if (is("DPMSolverMultistep") && name == "trailing") {  // its stride stays that of all times, so that there are fewer steps
      steps_ = int64_t(request_.told.size());
      return fmt::format("{{type: explicit, times: [{}], final: {}}}", fmt::join(request_.told, ", "), end);
    }
    lowest += fmt::format(", sigma_max: {}", std::exp(-request_.config["lambda_min_clipped"].get<double>()));
    if (is("DPMSolverSinglestep")) return fmt::format("{{type: linspace, final: {}{}}}", end, lowest);
  }
  if (name == "linspace" && sigma_frame_ && steps_ == 1) return fmt::format("{{type: explicit, times: [0], final: {}}}", end);
  if (name == "leading") return fmt::format("{{type: leading, offset: {}, final: {}{}}}", get<int64_t>("steps_offset", 0), end, lowest);
  if (name == "linspace" && sigma_frame_) return fmt::format("{{type: linspace, round: false, interpolation: sigma, final: {}}}", end);
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
    if (spaced.size() == 2 && !(get("sigma_max", 0.0) > 0)) return plain;
    if (get<std::string>("interpolation_type", "linear") == "linear") hi = spaced.front();
    hi = get("sigma_max", hi), lo = get("sigma_min", spaced[spaced.size() - 2]);
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

/// Sigmas handed to set_timesteps: flow matching's are shifted and end at 0, the others end with the last of them.
std::string DiffusersSolver::custom_sigmas_yaml(const std::vector<double>& sigmas) const {
  if (!is("FlowMatch"))
    return fmt::format("{{type: explicit, sigmas: [{}], end: {}}}", fmt::join(sigmas.begin(), sigmas.end() - 1, ", "), sigmas.back());
  std::vector<double> levels;
  const double mu = request_.set_timesteps.value("mu", 0.0);
  const double shift = !flag("use_dynamic_shifting")                                         ? get("shift", 1.0)
                       : get<std::string>("time_shift_type", "exponential") == "exponential" ? std::exp(mu)
                                                                                             : mu;
  for (const double s : sigmas) levels.push_back(flow_sigma(shift * s / (1 + (shift - 1) * s)));
  return fmt::format("{{type: explicit, sigmas: [{}], final: zero}}", fmt::join(levels, ", "));
}

}  // namespace brume::test
