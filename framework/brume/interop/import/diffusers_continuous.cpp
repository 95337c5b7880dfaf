#include "brume/interop/import/diffusers_continuous.h"
#include "brume/config/tree.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace brume {
namespace {

constexpr double sigma_min = 0.002, sigma_max = 80, sigma_data = 0.5, rho = 7;  ///< if a file is silent (Karras et al. 2022, table 1)

Value edm_levels(const DiffusersConfig& c) {
  return plugin_of(
      "edm", {{"sigma_min", c.get("sigma_min", sigma_min)}, {"sigma_max", c.get("sigma_max", sigma_max)}, {"rho", c.get("rho", rho)}});
}

std::string final_of(const DiffusersConfig& c) {
  const auto end = c.get<std::string>("final_sigmas_type", "zero");
  if (end != "zero" && end != "sigma_min") c.refuse("final_sigmas_type", "zero and sigma_min");
  return end == "zero" ? "zero" : "minimum";
}

/// Reads that of preconditioned networks, which receive log(sigma) / 4. A run starts as if its noise lay on an image of unit variance.
DiffusersScheduler edm(const DiffusersConfig& c, const Value& sampler) {
  const auto prediction = c.get<std::string>("prediction_type", "epsilon");
  if (prediction != "epsilon" && prediction != "v_prediction") c.refuse("prediction_type", "epsilon and v_prediction");
  const auto curve = c.get<std::string>("sigma_schedule", "karras");
  if (curve != "karras" && curve != "exponential") c.refuse("sigma_schedule", "karras and exponential");
  DiffusersScheduler s;
  s.noise = edm_levels(c);
  s.noise.set("start_image_std", value_of(1));
  s.parameterization =
      plugin_of("edm", {{"sigma_data", c.get("sigma_data", sigma_data)}, {"prediction", prediction == "epsilon" ? "eps" : "v"}});
  s.sampler = sampler;
  s.spacing = curve == "karras" ? plugin_of("karras", {{"rho", c.get("rho", rho)}, {"final", final_of(c)}})
                                : plugin_of("exponential", {{"final", final_of(c)}});
  s.noise_embedding = map_of({{"input", "quarter_log"}});
  return s;
}

DiffusersScheduler edm_dpm_solver(const DiffusersConfig& c) {
  const auto algorithm = c.get<std::string>("algorithm_type", "dpmsolver++");
  if (!algorithm.ends_with("++") && algorithm != "deis") c.refuse("algorithm_type", "dpmsolver++ and sde-dpmsolver++");
  DiffusersScheduler s = edm(c, dpm_solver(c, "dpmpp_multistep", "dpm_solver_multistep", false));
  if (c.get("thresholding", false)) s.guidance = {dynamic_threshold(c)};
  return s;
}

/// Reads that of consistency models (Song et al. 2023): sampled at some of the levels they were trained at, with 250 log(sigma) as noise
/// level.
DiffusersScheduler consistency(const DiffusersConfig& c) {
  DiffusersScheduler s;
  s.noise = edm_levels(c);
  s.parameterization =
      plugin_of("consistency", {{"sigma_min", c.get("sigma_min", sigma_min)}, {"sigma_data", c.get("sigma_data", sigma_data)}});
  s.sampler = plugin_of("consistency", {{"s_noise", c.get("s_noise", 1.0)}});
  s.spacing =
      plugin_of("karras", {{"rho", c.get("rho", rho)}, {"levels", c.get<int64_t>("num_train_timesteps", 40)}, {"final", "minimum"}});
  if (c.get("clip_denoised", true)) s.guidance = {plugin_of("clip", {{"range", 1}})};
  s.noise_embedding = map_of({{"input", "quarter_log"}, {"scale", 1000}});
  return s;
}

/// Reads that of flow matching: the smallest level is shifted once for the table of training, and again with the others of a run.
DiffusersScheduler flow(const DiffusersConfig& c, const Value& sampler) {
  for (const char* key : {"use_dynamic_shifting", "invert_sigmas"}) c.absent(key);  // the shift is its pipelines' to say
  if (c.has("scale_factors") && !c.values()["scale_factors"].empty()) c.refuse("scale_factors", "null");
  const auto times = c.get<int64_t>("num_train_timesteps", 1000);
  if (times < 2 || times > 1000000) c.refuse("num_train_timesteps", "2 to 1000000");
  const double shift = c.get("shift", 1.0), t = 1 / double(times);
  std::vector<std::string> curves;
  for (const char* curve : {"karras", "exponential", "beta"})
    if (c.get(fmt::format("use_{}_sigmas", curve).c_str(), false)) curves.emplace_back(curve);
  if (curves.size() > 1)
    throw ConfigError(fmt::format("{}: use_karras_sigmas, use_exponential_sigmas and use_beta_sigmas: one at most", c.file()));
  DiffusersScheduler s;
  const double shifted = shift * t / (1 + (shift - 1) * t), terminal = c.get("shift_terminal", 0.0);
  const double bound = terminal > 0 ? terminal / (shift - (shift - 1) * terminal) : t;  // before the shift
  const double lowest = std::min({t, shifted, bound});                                  // that of a run is shifted twice
  s.noise = plugin_of("flow", {{"shift", shift}, {"t_min", lowest}, {"timestep_scale", times}});
  s.parameterization = value_of("flow");
  s.sampler = sampler;
  s.spacing = plugin_of("flow", {{"shift", shift}, {"s_max", 1}, {"s_min", shifted}, {"curve", curves.empty() ? "linear" : curves[0]}});
  if (terminal != 0) s.spacing.set("terminal", value_of(terminal));
  return s;
}

/// Reads F-PNDM of v-diffusion, for networks that predict v and receive the angle.
DiffusersScheduler ipndm(const DiffusersConfig& c) {
  c.absent("trained_betas");
  DiffusersScheduler s;
  s.noise = plugin_of("angle", {{"min_signal", "1.0e-06"}, {"max_signal", "0.999999999999"}});
  s.parameterization = value_of("v");
  s.sampler = plugin_of("ipndm", {{"zero_first", true}});
  s.spacing = value_of("crash");
  return s;
}

/// Returns the variance-exploding SDE (Song et al. 2021b), for networks that give the score of images in [0, 1] and receive sigma.
DiffusersScheduler score_sde(const DiffusersConfig& c) {
  c.only<double>("sampling_eps", 1e-5);
  DiffusersScheduler s;
  s.noise = plugin_of("ve", {{"sigma_min", c.get("sigma_min", 0.01)}, {"sigma_max", c.get("sigma_max", 1348.0)}});
  s.parameterization = value_of("score");
  s.sampler = plugin_of("predictor_corrector",
                        {{"norms", "batch"}, {"snr", c.get("snr", 0.15)}, {"corrections", c.get<int64_t>("correct_steps", 1)}});
  s.spacing = value_of("exponential");
  s.noise_embedding = map_of({{"input", "sigma"}});
  s.unit_range = true;
  return s;
}

Value fresh_noise() { return plugin_of("consistency", {{"s_noise", 1}}); }

}  // namespace

const std::vector<std::string>& continuous_schedulers() {
  static const std::vector<std::string> names{"EDMEulerScheduler",
                                              "EDMDPMSolverMultistepScheduler",
                                              "CMStochasticIterativeScheduler",
                                              "FlowMatchEulerDiscreteScheduler",
                                              "FlowMatchHeunDiscreteScheduler",
                                              "FlowMatchLCMScheduler",
                                              "IPNDMScheduler",
                                              "ScoreSdeVeScheduler"};
  return names;
}

std::optional<DiffusersScheduler> read_continuous_scheduler(const DiffusersConfig& c) {
  const auto name = c.get<std::string>("_class_name", "");
  if (name == "EDMEulerScheduler") return edm(c, value_of("euler"));
  if (name == "EDMDPMSolverMultistepScheduler") return edm_dpm_solver(c);
  if (name == "CMStochasticIterativeScheduler") return consistency(c);
  if (name == "FlowMatchEulerDiscreteScheduler") return flow(c, c.get("stochastic_sampling", false) ? fresh_noise() : value_of("euler"));
  if (name == "FlowMatchHeunDiscreteScheduler") return flow(c, plugin_of("heun", {{"time", "flow"}, {"scale", "flow"}}));
  if (name == "FlowMatchLCMScheduler") return flow(c, fresh_noise());
  if (name == "IPNDMScheduler") return ipndm(c);
  if (name == "ScoreSdeVeScheduler") return score_sde(c);
  return {};
}

std::string solver_type(const DiffusersConfig& c, const std::vector<std::string>& known, const std::string& usual) {
  const auto name = c.get<std::string>("solver_type", usual);
  if (std::find(known.begin(), known.end(), name) != known.end()) return name;
  for (const char* other : {"midpoint", "heun", "logrho", "bh1", "bh2"})
    if (name == other) return usual;
  c.refuse("solver_type", fmt::format("{}", fmt::join(known, " and ")));
}

Value dpm_solver(const DiffusersConfig& c, const char* data, const char* noise, bool singlestep) {
  auto algorithm = c.get<std::string>("algorithm_type", "dpmsolver++");
  if (algorithm == "deis") algorithm = "dpmsolver++";  // as the class takes it
  if (algorithm != "dpmsolver" && algorithm != "dpmsolver++" && algorithm != "sde-dpmsolver" && algorithm != "sde-dpmsolver++")
    c.refuse("algorithm_type", "dpmsolver, dpmsolver++, sde-dpmsolver and sde-dpmsolver++");
  Value sampler = plugin_of(algorithm.ends_with("++") ? data : noise, {{"order", c.get<int64_t>("solver_order", 2)},
                                                                       {"solver", solver_type(c, {"midpoint", "heun"}, "midpoint")},
                                                                       {"eta", int(algorithm.starts_with("sde"))},
                                                                       {"lower_order_final", c.get("lower_order_final", !singlestep)}});
  if (!singlestep) sampler.set("euler_at_final", value_of(c.get("euler_at_final", false)));
  return sampler;
}

Value dynamic_threshold(const DiffusersConfig& c) {
  return plugin_of("dynamic_threshold",
                   {{"quantile", c.get("dynamic_thresholding_ratio", 0.995)}, {"maximum", c.get("sample_max_value", 1.0)}});
}

}  // namespace brume
