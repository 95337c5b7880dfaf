#include "brume/interop/import/diffusers_scheduler.h"
#include "brume/config/tree.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>

#include "brume/config/counted.h"
#include "brume/config/suggest.h"
#include "brume/interop/import/diffusers_continuous.h"

namespace brume {
namespace {

/// What sets the classes apart: the frame that x is kept in, the defaults of their keys, and if they leave out the lowest level.
struct Kind {
  const char* name;
  bool sigma_frame = false;  ///< x0 + sigma noise, started from sigma noise (k-diffusion's)
  bool half_log = false;     ///< multistep in log-SNR: a grid of one level more, the lowest left out
  double beta_start = 1e-4, beta_end = 0.02;
  const char* beta_schedule = "linear";
  bool clips = false;  ///< clip_sample if silent
};

constexpr Kind kinds[] = {{.name = "DDPMScheduler", .clips = true},
                          {.name = "DDPMParallelScheduler", .clips = true},
                          {.name = "UnCLIPScheduler", .beta_schedule = "squaredcos_cap_v2", .clips = true},
                          {.name = "DDIMScheduler", .clips = true},
                          {.name = "DDIMParallelScheduler", .clips = true},
                          {.name = "PNDMScheduler"},
                          {.name = "LMSDiscreteScheduler", .sigma_frame = true},
                          {.name = "EulerDiscreteScheduler", .sigma_frame = true},
                          {.name = "EulerAncestralDiscreteScheduler", .sigma_frame = true},
                          {.name = "HeunDiscreteScheduler", .sigma_frame = true, .beta_start = 0.00085, .beta_end = 0.012},
                          {.name = "KDPM2DiscreteScheduler", .sigma_frame = true, .beta_start = 0.00085, .beta_end = 0.012},
                          {.name = "KDPM2AncestralDiscreteScheduler", .sigma_frame = true, .beta_start = 0.00085, .beta_end = 0.012},
                          {.name = "DPMSolverSDEScheduler", .sigma_frame = true, .beta_start = 0.00085, .beta_end = 0.012},
                          {.name = "DPMSolverMultistepScheduler", .half_log = true},
                          {.name = "DPMSolverMultistepInverseScheduler", .half_log = true},
                          {.name = "DPMSolverSinglestepScheduler", .half_log = true},
                          {.name = "DEISMultistepScheduler", .half_log = true},
                          {.name = "UniPCMultistepScheduler", .half_log = true},
                          {.name = "SASolverScheduler", .half_log = true},
                          {.name = "LCMScheduler", .beta_start = 0.00085, .beta_end = 0.012, .beta_schedule = "scaled_linear"},
                          {.name = "TCDScheduler", .beta_start = 0.00085, .beta_end = 0.012, .beta_schedule = "scaled_linear"}};

/// What brume is not, and why.
constexpr std::pair<const char*, const char*> others[] = {
    {"DDPMWuerstchenScheduler", "whose cosine is continuous and cut off at both ends"},
    {"VQDiffusionScheduler", "which is of discrete codes"},
    {"DDIMInverseScheduler", "which goes from an image to noise: `brume invert` does"}};

const Kind& kind_of(const DiffusersConfig& c) {
  const auto name = c.get<std::string>("_class_name", "");
  std::vector<std::string> known;
  for (const Kind& k : kinds) {
    if (name == k.name) return k;
    known.emplace_back(k.name);
  }
  known.insert(known.end(), continuous_schedulers().begin(), continuous_schedulers().end());
  const auto why = std::find_if(std::begin(others), std::end(others), [&](const auto& other) { return name == other.first; });
  const bool other = why != std::end(others);
  throw ConfigError(fmt::format("{}: no scheduler of brume stands for _class_name '{}'{}; those that are imported: {}{}", c.file(), name,
                                other ? fmt::format(", {}", why->second) : "", fmt::join(known, ", "), other ? "" : hint(name, known)));
}

/// The words of one class.
class Reader {
 public:
  Reader(const DiffusersConfig& c, bool stable_diffusion, int64_t steps)
      : c_(c), kind_(kind_of(c)), stable_(stable_diffusion), steps_(steps) {}

  DiffusersScheduler read() const {
    refuse_unknown_keys();
    DiffusersScheduler s;
    s.noise = noise();
    s.parameterization = value_of(parameterization());
    s.sampler = sampler();
    s.spacing = spacing();
    s.guidance = guidance();
    s.learned_range = learned_variance();
    const std::string spaced = spacing_name();
    if (kind_.sigma_frame && (spaced == "linspace" || spaced == "trailing")) s.start = "sigma";
    if (kind_.half_log) s.timestep_rounding = timestep_rounding();
    if (is("KDPM2") && curve("use_karras_sigmas")) s.timestep_rounding = "nearest_step";
    if (log_sigma()) s.noise_embedding = map_of({{"input", "quarter_log"}});
    s.losses = losses();
    for (std::string& loss : losses_of_steps()) s.losses.push_back(std::move(loss));
    return s;
  }

 private:
  /// Returns true for DDPM, and for unCLIP, whose times are those of linspace.
  bool ddpm() const { return is("DDPM") || is("UnCLIP"); }
  bool is(std::string_view family) const { return std::string_view(kind_.name).starts_with(family); }
  bool flag(const char* key) const { return c_.get(key, false); }
  /// Returns true for multistep solvers, which drop what the network gives in addition to the noise.
  bool drops_variance() const { return is("DPMSolverMultistep") || is("DPMSolverSinglestep") || is("SASolver"); }
  bool learned_variance() const {
    const auto type = c_.get<std::string>("variance_type", "fixed_small");
    return (ddpm() && type == "learned_range") || (drops_variance() && type.starts_with("learned"));
  }
  /// Returns true for one level more than steps, evenly in log sigma; a run ends at the last of them.
  bool log_linear() const { return log_ends() && curves() == 0; }
  /// Returns true for that, or a curve in its place, which runs between the ends of the schedule whatever the plain spacing is.
  bool log_ends() const { return is("EulerDiscrete") && c_.get<std::string>("interpolation_type", "linear") == "log_linear"; }
  /// Returns exp(-lambda_min_clipped), the largest sigma of the plain spacings; of the same classes.
  std::optional<double> largest_sigma() const {
    if (!drops_variance() || !c_.has("lambda_min_clipped") || !c_.values()["lambda_min_clipped"].is_number()) return {};
    return std::exp(-c_.get("lambda_min_clipped", 0.0));
  }
  /// Returns true if the key of a curve is set and the class knows it: files keep the keys of the class that they were made from.
  bool curve(const char* key) const {
    if (std::string_view(key) == "use_lu_lambdas" && !is("DPMSolverMultistep")) return false;
    return (kind_.half_log || (kind_.sigma_frame && !is("EulerAncestral"))) && flag(key);
  }
  /// Returns the number of curves that are set.
  int curves() const {
    return curve("use_karras_sigmas") + curve("use_exponential_sigmas") + curve("use_beta_sigmas") + curve("use_lu_lambdas");
  }
  /// Returns true for flow matching's levels and frame, if no curve replaces the levels.
  bool flow() const { return kind_.half_log && flag("use_flow_sigmas") && curves() == 0; }
  /// Returns true for Euler's class for networks that receive log(sigma) / 4; a curve may be on levels beyond those of any table.
  bool log_sigma() const {
    return is("EulerDiscrete") && c_.get<std::string>("timestep_type", "discrete") == "continuous" && parameterization() == "v";
  }
  /// Returns how times are rounded: DPM-Solver's are whole numbers, rounded or cut off; those of the plain spacings are as they are.
  std::string timestep_rounding() const {
    if (flow() || curve("use_exponential_sigmas") || curve("use_beta_sigmas")) return "below";
    if (!curve("use_karras_sigmas") && !curve("use_lu_lambdas")) return "exact";
    return is("DPMSolverMultistep") && c_.get<std::string>("beta_schedule", "") == "squaredcos_cap_v2" ? "below" : "nearest";
  }

  std::vector<std::string> losses() const {
    std::vector<std::string> all;
    if (is("DPMSolverMultistepInverse"))
      all.push_back("the direction of DPMSolverMultistepInverseScheduler: `brume sample` makes images, `brume invert` goes to noise");
    if (is("DPMSolverMultistep") && c_.get<int64_t>("solver_order", 2) == 3 &&
        c_.get<std::string>("algorithm_type", "dpmsolver++").starts_with("sde"))
      all.push_back("a sign in the third order of DPMSolverMultistepScheduler's SDE: brume has that of the integral");
    if (is("DDPM") && (spacing_name() == "trailing" || c_.get<int64_t>("steps_offset", 0) > 0))
      if (const auto variance = c_.get<std::string>("variance_type", ""); variance == "fixed_large" || variance == "learned_range")
        all.push_back(fmt::format("the noise that {} adds in its last step", kind_.name));
    if (log_linear())
      all.push_back(
          "the times of interpolation_type log_linear: the network receives those of its levels, not those that are evenly spaced");
    if (is("DPMSolverSDE"))
      all.push_back("the Brownian path of DPMSolverSDEScheduler: the noise is drawn otherwise (sample.noise_order: brownian)");
    return all;
  }

  /// Returns true if steps of the training times divided by their number do not end at the times of the next.
  bool unequal_steps() const {
    const auto times = c_.get<int64_t>("num_train_timesteps", 1000);
    const bool known = steps_ > 0, strided = is("DDIM") || is("PNDM");
    return strided && (spacing_name() == "linspace" || (known && spacing_name() == "trailing" && (times < steps_ || times % steps_ > 0)));
  }

  /// Returns the losses that only some numbers of steps have.
  std::vector<std::string> losses_of_steps() const {
    const std::string spaced = spacing_name();
    const auto times = c_.get<int64_t>("num_train_timesteps", 1000);
    const bool known = steps_ > 0, plain = known && curves() == 0, linspace = spaced == "linspace", trailing = spaced == "trailing";
    const bool beyond = times < steps_;
    std::vector<std::string> all;
    if (unequal_steps() && (is("PNDM") || !known || beyond))
      all.push_back(
          fmt::format("the length of the steps of {}, each of the training times divided by the steps: those of brume end at "
                      "the time of the next, as they do there if timestep_spacing is leading, or trailing and the steps divide the times",
                      kind_.name));
    if (is("PNDM") && !flag("skip_prk_steps") && !linspace && known && (beyond || times / steps_ % 2 > 0))
      all.push_back(
          "the time that the network receives in the middle of the first three steps of PNDMScheduler: of an odd number of times "
          "between two steps brume takes that of the level, and it the one below");
    if (plain && linspace && steps_ == 1 && !kind_.half_log && !is("UnCLIP"))
      all.push_back(fmt::format("the time of a run of one step: {} takes the first training time, and brume the last", kind_.name));
    if (plain && trailing && std::ceil(double(times) / (double(times) / double(steps_))) > double(steps_))
      all.push_back(fmt::format("one step more, of the training time -1, which {} takes with {} out of {} training times", kind_.name,
                                counted(steps_, "step"), times));
    return all;
  }

  void refuse_unknown_keys() const {
    for (const char* key : {"use_dynamic_shifting", "solver_p", "use_timesteps_as_is"}) c_.absent(key);
    // Of DEIS the last of them is there twice, so that its last step goes nowhere.
    if (!is("DPMSolverMultistep") && !is("DPMSolverSinglestep") && !is("UniPC")) c_.absent("use_flow_sigmas");
    if (flow() && final_sigma() != "zero") c_.refuse("final_sigmas_type", "zero, with use_flow_sigmas,");
    if (const auto between = c_.get<std::string>("interpolation_type", "linear"); between != "linear" && between != "log_linear")
      c_.refuse("interpolation_type", "linear and log_linear");
    if (const auto type = c_.get<std::string>("timestep_type", "discrete"); type != "discrete" && type != "continuous")
      c_.refuse("timestep_type", "discrete and continuous");
    if (log_sigma() && curves() > 0 && c_.has("sigma_min") != c_.has("sigma_max"))
      c_.refuse(c_.has("sigma_min") ? "sigma_max" : "sigma_min", "a number, if the other bound is one and timestep_type is continuous,");
    if (c_.has("lambda_min_clipped") && !c_.values()["lambda_min_clipped"].is_number() && c_.values()["lambda_min_clipped"] != "-inf")
      c_.refuse("lambda_min_clipped", "a number, and -Infinity");
    if (largest_sigma() && spacing_name() == "trailing")  // there with fewer steps than asked for
      c_.refuse("timestep_spacing", "linspace and leading, with lambda_min_clipped,");
    if (is("SASolver"))
      if (const auto of = c_.get<std::string>("algorithm_type", "data_prediction"); of != "data_prediction" && of != "noise_prediction")
        c_.refuse("algorithm_type", "data_prediction and noise_prediction");
    if (is("UnCLIP")) c_.only<std::string>("beta_schedule", "squaredcos_cap_v2");
    if (curves() > 1)
      throw ConfigError(
          fmt::format("{}: use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas and use_lu_lambdas: one at most", c_.file()));
  }

  Value noise() const {
    const auto times = c_.get<int64_t>("num_train_timesteps", 1000);
    const auto name = c_.get<std::string>("beta_schedule", kind_.beta_schedule);
    Value noise;
    if (flow()) return plugin_of("flow", {{"t_min", "1.0e-06"}, {"timestep_scale", times}});
    if (log_sigma() && curves() > 0 && c_.has("sigma_max")) {
      const auto signal = [&](const char* key) { return 1 / std::hypot(1, c_.get(key, 1.0)); };
      return plugin_of("angle", {{"min_signal", signal("sigma_max")}, {"max_signal", signal("sigma_min")}});
    }
    if (const auto trained = c_.get<std::vector<double>>("trained_betas", {}); !trained.empty())
      noise = plugin_of("betas", {{"betas", trained}});
    else if (name == "squaredcos_cap_v2" || name == "exp")
      noise = plugin_of(name == "exp" ? "exponential" : "cosine", {{"timesteps", times}});
    else if (name == "linear" || name == "scaled_linear" || name == "sigmoid")
      noise = plugin_of(
          name,
          {{"timesteps", times}, {"beta_start", c_.get("beta_start", kind_.beta_start)}, {"beta_end", c_.get("beta_end", kind_.beta_end)}});
    else
      c_.refuse("beta_schedule", "linear, scaled_linear, squaredcos_cap_v2, sigmoid and exp");
    if (!flag("rescale_betas_zero_snr")) return noise;
    return plugin_of("zero_terminal_snr", {{"max_sigma", kind_.sigma_frame || kind_.half_log ? 4096 : 1000000}, {"schedule", noise}});
  }

  std::string parameterization() const {
    const auto name = c_.get<std::string>("prediction_type", "epsilon");
    if (name == "epsilon") return "eps";
    if (name == "sample") return "x0";
    if (name == "flow_prediction" && flow()) return "flow";
    if (name != "v_prediction") c_.refuse("prediction_type", "epsilon, sample and v_prediction");
    return "v";
  }

  Value ddpm_sampler() const {
    auto variance = c_.get<std::string>("variance_type", "fixed_small");
    if (variance == "fixed_small" || variance == "fixed_small_log")
      variance = "small";
    else if (variance == "fixed_large")
      variance = "large";
    else if (variance != "learned_range")
      c_.refuse("variance_type", "fixed_small, fixed_small_log, fixed_large and learned_range");
    return plugin_of("ddpm", {{"variance", variance}});
  }

  Value sampler() const {
    const auto order = c_.get<int64_t>("solver_order", 2);
    const bool lower = c_.get("lower_order_final", true);
    const auto times = double(c_.get<int64_t>("num_train_timesteps", 1000));
    if (ddpm()) return ddpm_sampler();
    if (is("DDIM")) {
      Value ddim = plugin_of("ddim", {{"eta", 0}});
      if (unequal_steps() && steps_ > 0 && times >= double(steps_)) ddim.set("stride", value_of(int64_t(times) / steps_));
      return ddim;
    }
    if (is("PNDM"))
      return plugin_of(flag("skip_prk_steps") ? "plms" : "pndm",
                       {{"combine", c_.get<std::string>("prediction_type", "epsilon") == "v_prediction" ? "v" : "noise"}});
    if (is("LMS")) return plugin_of("lms", {{"order", 4}});
    if (is("EulerAncestral")) return value_of("euler_ancestral");
    if (is("Euler")) return value_of("euler");
    if (is("Heun")) return value_of("heun");
    if (is("KDPM2Ancestral")) return value_of("dpm_2_ancestral");
    if (is("KDPM2")) return value_of("dpm_2");
    if (is("DPMSolverSDE")) return value_of("dpmpp_sde");
    if (is("DPMSolverMultistep")) return dpm_solver(c_, "dpmpp_multistep", "dpm_solver_multistep", false);
    if (is("DPMSolverSinglestep")) return dpm_solver(c_, "dpmpp_singlestep", "dpm_solver_singlestep", true);
    if (is("DEIS")) return plugin_of("deis", {{"order", order}, {"lower_order_final", lower}});
    if (is("UniPC"))
      return plugin_of("unipc", {{"order", order},
                                 {"solver", solver_type(c_, {"bh1", "bh2"}, "bh2")},
                                 {"prediction", c_.get("predict_x0", true) ? "data" : "noise"},
                                 {"lower_order_final", lower},
                                 {"disable_corrector", c_.get("disable_corrector", std::vector<int64_t>{})}});
    if (is("SASolver"))
      return plugin_of("sa_solver",
                       {{"predictor_order", c_.get<int64_t>("predictor_order", 2)},
                        {"corrector_order", c_.get<int64_t>("corrector_order", 2)},
                        {"lower_order_final", lower},
                        {"prediction", c_.get<std::string>("algorithm_type", "data_prediction") == "data_prediction" ? "data" : "noise"},
                        {"tau_start", std::min(1.0, 200 / times)},  // noise between the training times 200 and 800
                        {"tau_end", std::min(1.0, 800 / times)}});
    if (is("LCM")) return plugin_of("lcm", {{"timestep_scaling", c_.get("timestep_scaling", 10.0)}});
    return plugin_of("tcd", {{"eta", 0}});  // the default of its pipelines
  }

  std::string spacing_name() const {
    if (is("DPMSolverSinglestep") || is("UnCLIP")) return "linspace";  // they know no other
    const auto name = c_.get<std::string>("timestep_spacing", kind_.sigma_frame || kind_.half_log ? "linspace" : "leading");
    if (name != "linspace" && name != "leading" && name != "trailing") c_.refuse("timestep_spacing", "linspace, leading and trailing");
    return name;
  }

  std::string final_sigma() const {
    bool zero = true;
    if (is("PNDM"))
      zero = flag("set_alpha_to_one");
    else if (is("DDIM"))
      zero = c_.get("set_alpha_to_one", true);
    else if (is("TCD") || is("DEIS") || is("SASolver"))
      zero = false;
    else if (ddpm() || is("LCM") || is("EulerAncestral") || (kind_.sigma_frame && !is("Euler")))
      zero = true;
    else if (const auto end = c_.get<std::string>("final_sigmas_type", "zero"); end != "zero") {
      if (end != "sigma_min") c_.refuse("final_sigmas_type", "zero and sigma_min");
      zero = false;
    }
    return zero ? "zero" : "minimum";
  }

  Value spacing() const {
    const std::string end = final_sigma(), name = spacing_name();
    if (flow()) {  // UniPC's run from 1 - 1e-6, after the shift, to 1 / T, the others' from 1 - 1 / T to 0; the lowest is left out
      const double t = 1 / double(c_.get<int64_t>("num_train_timesteps", 1000)), shift = c_.get("flow_shift", 1.0), top = 1 - 1e-6;
      const double first = is("UniPC") ? top / (shift - (shift - 1) * top) : 1 - t;
      return plugin_of("flow", {{"shift", shift}, {"s_max", first}, {"s_min", is("UniPC") ? t : 0}, {"inclusive", false}});
    }
    if (is("LCM") || is("TCD"))
      return plugin_of("lcm", {{"original_steps", c_.get<int64_t>("original_inference_steps", 50)}, {"final", end}});
    const auto offset = stable_ ? int64_t(1) : c_.get<int64_t>("steps_offset", 0);
    if (log_linear()) return plugin_of("exponential", {{"inclusive", false}, {"final", "minimum"}});
    if (name == "linspace" && kind_.sigma_frame)
      return curved(plugin_of(name, {{"round", false}, {"interpolation", "sigma"}, {"final", end}}), name, end);
    Value plain = plugin_of(name, {});
    if (name == "leading") plain.set("offset", value_of(offset));
    plain.set("final", value_of(end));
    if (kind_.half_log && name != "trailing") plain.set("inclusive", value_of(false));
    if (const auto largest = largest_sigma()) plain.set("sigma_max", value_of(*largest));
    return curved(plain, name, end);
  }

  /// Returns the spacing of a curve: karras and its like run between the ends of the plain spacing (k-diffusion's schedulers) or of the
  /// schedule (DPM-Solver's).
  Value curved(const Value& plain, const std::string& name, const std::string& end) const {
    const std::string type = curve("use_karras_sigmas")                                   ? "karras"
                             : curve("use_exponential_sigmas") || curve("use_lu_lambdas") ? "exponential"
                             : curve("use_beta_sigmas")                                   ? "beta"
                                                                                          : "";
    if (type.empty()) return plain;
    Value spacing = plugin_of(type, {});
    for (const char* key : {"sigma_min", "sigma_max"})
      if (kind_.sigma_frame && c_.has(key)) spacing.set(key, value_of(c_.get(key, 0.0)));
    if (kind_.sigma_frame && name != "linspace" && !log_ends() && !(c_.has("sigma_min") && c_.has("sigma_max")))
      spacing.set("ends_of", map_of({{"spacing", plain}}));
    spacing.set("final", value_of(end));
    return spacing;
  }

  std::vector<Value> guidance() const {
    const bool keep = is("DDIM");                     // takes the direction of the noise from the network's own output
    const bool bounds = ddpm() || keep || is("LCM");  // not PNDM, TCD, Euler's and their like, whatever keys of others say
    const bool ignores = is("UniPC") && !c_.get("predict_x0", true);
    std::vector<Value> all;
    if ((bounds || kind_.half_log) && flag("thresholding") && !ignores)
      all.push_back(dynamic_threshold(c_));
    else if ((bounds || is("Heun")) && c_.get("clip_sample", kind_.clips) && !stable_)
      all.push_back(plugin_of("clip", {{"range", c_.get("clip_sample_range", 1.0)}}));
    if (keep && !all.empty()) all.front().set("keep_direction", value_of(true));
    return all;
  }

  const DiffusersConfig& c_;
  const Kind& kind_;
  bool stable_;
  int64_t steps_;  ///< 0 = any
};

}  // namespace

Value DiffusersScheduler::sample(int64_t steps, std::vector<Value> before) const {
  before.insert(before.end(), guidance.begin(), guidance.end());
  return map_of({{"sampler", sampler},
                 {"spacing", spacing},
                 {"steps", steps},
                 {"guidance", before},
                 {"start", start},
                 {"timestep_rounding", timestep_rounding}});
}

DiffusersScheduler read_diffusers_scheduler(const DiffusersConfig& config, bool stable_diffusion, int64_t steps) {
  if (const auto continuous = read_continuous_scheduler(config)) return *continuous;
  return Reader(config, stable_diffusion, steps).read();
}

}  // namespace brume
