#include "brume/interop/export/diffusers_scheduler.h"
#include "brume/config/number.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "brume/interop/layouts/sections.h"

namespace brume {
namespace {

using nlohmann::json;

/// Sets the levels of EDM, for networks with its preconditioning or for consistency models.
void edm(DiffusersSchedulerFile& s, const Value& noise, const Value& parameterization, const Value& sample) {
  const bool consistency = text_of(parameterization, "type") == "consistency";
  for (const char* key : {"sigma_min", "sigma_max", "rho"}) s.config[key] = number_of(noise, key);
  s.config["sigma_data"] = number_of(parameterization, "sigma_data");
  s.input = "quarter_log";
  if (!consistency) {
    s.type = "EDMEulerScheduler";
    s.config["num_train_timesteps"] = 1000;
    s.config["prediction_type"] = text_of(parameterization, "prediction") == "v" ? "v_prediction" : "epsilon";
    s.config["sigma_schedule"] = "karras";
    if (number_of(noise, "start_image_std") != 1)
      s.notes.emplace_back("the spread of the noise that a run starts from: diffusers has sqrt(1 + sigma^2)");
    return;
  }
  s.type = "CMStochasticIterativeScheduler";
  s.scale = 1000;
  const Value* guidance = sample.find("guidance");
  const auto clips = [](const Value& g) { return text_of(g, "type") == "clip"; };
  s.config["clip_denoised"] = guidance && std::any_of(guidance->items.begin(), guidance->items.end(), clips);
  const int64_t levels = integer_of(part_of(sample, "spacing"), "levels");
  s.config["num_train_timesteps"] = levels > 0 ? levels : 40;
  s.config["s_noise"] = 1.0;
}

/// Sets beta_schedule and its keys; adds a note if diffusers has no such schedule.
void betas(DiffusersSchedulerFile& s, Value noise) {
  static const std::map<std::string, std::string> schedules{{"linear", "linear"},
                                                            {"scaled_linear", "scaled_linear"},
                                                            {"sigmoid", "sigmoid"},
                                                            {"cosine", "squaredcos_cap_v2"},
                                                            {"exponential", "exp"}};
  const std::string whole = text_of(noise, "type");
  const bool rescaled = whole == "zero_terminal_snr";
  if (rescaled) {
    noise = part_of(noise, "schedule");
    s.config["rescale_betas_zero_snr"] = true;
  }
  const auto schedule = schedules.find(text_of(noise, "type"));
  if (schedule != schedules.end()) s.config["beta_schedule"] = schedule->second;
  if (noise.find("betas")) {
    json betas = json::array();
    for (const std::string& b : list_of(noise, "betas")) betas.push_back(parse_number<double>(b).value_or(0));
    s.config["trained_betas"] = betas;
  }
  const auto other = [&](const char* key, double usual) { return noise.find(key) && number_of(noise, key) != usual; };
  if ((schedule == schedules.end() && !noise.find("betas")) || truth_of(noise, "rescale") || other("s", 0.008) || other("rate", 12) ||
      other("max_beta", 0.999))
    s.notes.push_back(fmt::format("the noise schedule '{}', which diffusers has not: scheduler_config.json does not say it", whole));
  s.config["num_train_timesteps"] = noise.find("timesteps") ? integer_of(noise, "timesteps") : 1000;
  for (const char* key : {"beta_start", "beta_end"})
    if (noise.find(key)) s.config[key] = number_of(noise, key);
}

void ddim(DiffusersSchedulerFile& s, const Value& noise, const Value& parameterization, const Value& sample) {
  static const std::map<std::string, std::string> predictions{{"eps", "epsilon"}, {"x0", "sample"}, {"v", "v_prediction"}};
  const std::string predicted = text_of(parameterization, "sign") == "score" ? "minus eps" : text_of(parameterization, "type");
  const auto prediction = predictions.find(predicted);
  const Value spacing = part_of(sample, "spacing");
  const std::string type = text_of(spacing, "type");
  s.config["clip_sample"] = false;
  s.config["set_alpha_to_one"] = text_of(spacing, "final") != "minimum";
  s.config["steps_offset"] = type == "leading" ? integer_of(spacing, "offset") : 0;
  if (const Value sampler = part_of(sample, "sampler"); type == "lcm" && text_of(sampler, "type") == "lcm") {
    s.type = "LCMScheduler";
    s.config["original_inference_steps"] = integer_of(spacing, "original_steps");
    s.config["timestep_scaling"] = number_of(sampler, "timestep_scaling");
  }
  s.config["timestep_spacing"] = type == "leading" || type == "linspace" ? type : type == "lcm" ? "leading" : "trailing";
  betas(s, noise);
  if (prediction == predictions.end())
    s.notes.push_back(fmt::format("what the network predicts ('{}'): scheduler_config.json does not say it", predicted));
  else
    s.config["prediction_type"] = prediction->second;
}

}  // namespace

DiffusersSchedulerFile to_diffusers_scheduler(const Value& model, const Value& sample) {
  const Value noise = part_of(model, "noise"), parameterization = part_of(model, "parameterization");
  const std::string levels = text_of(noise, "type"), predicted = text_of(parameterization, "type");
  DiffusersSchedulerFile s;
  if (levels == "edm" && (predicted == "edm" || predicted == "consistency")) {
    edm(s, noise, parameterization, sample);
  } else if (levels == "flow" && predicted == "flow") {
    s.type = "FlowMatchEulerDiscreteScheduler";
    s.config["num_train_timesteps"] = std::llround(number_of(noise, "timestep_scale"));
    s.config["shift"] = number_of(noise, "shift");
    const Value spacing = part_of(sample, "spacing");
    const std::vector<std::string> tokens = list_of(spacing, "tokens"), mus = list_of(spacing, "mus");
    if (tokens.size() == 2 && mus.size() == 2) {  // a shift by the number of tokens
      s.config["use_dynamic_shifting"] = true;
      s.config["base_image_seq_len"] = parse_number<int64_t>(tokens[0]).value_or(256);
      s.config["max_image_seq_len"] = parse_number<int64_t>(tokens[1]).value_or(4096);
      s.config["base_shift"] = parse_number<double>(mus[0]).value_or(0.5);
      s.config["max_shift"] = parse_number<double>(mus[1]).value_or(1.15);
    }
  } else {
    ddim(s, noise, parameterization, sample);
  }
  s.config["_class_name"] = s.type;
  return s;
}

}  // namespace brume
