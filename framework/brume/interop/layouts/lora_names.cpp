#include "brume/interop/layouts/lora_names.h"

#include <algorithm>
#include <stdexcept>
#include <string_view>

#include "brume/interop/layouts/diffusers_unet.h"

namespace brume {
namespace {

constexpr std::string_view network = "network.", conditioner = "conditioner.", text = "text_model.";
constexpr std::string_view weight_ending = ".weight", bias_ending = ".bias";
constexpr std::string_view dotted_encoders[] = {"text_encoder.", "text_encoder_2."}, flat_encoders[] = {"lora_te_", "lora_te2_"};

std::string one_word(std::string module) {
  std::replace(module.begin(), module.end(), '.', '_');
  return module;
}

/// Returns the name without ".weight" or ".bias"; "" if it ends with neither.
std::string module_of(std::string_view name) {
  for (const std::string_view ending : {weight_ending, bias_ending})
    if (name.ends_with(ending)) return std::string(name.substr(0, name.size() - ending.size()));
  return "";
}

/// Returns what the names of each text encoder's weights begin with, before "text_model.".
std::vector<std::string> encoders_of(const std::vector<Weight>& weights) {
  std::vector<std::string> all;
  for (const Weight& w : weights) {
    const size_t at = w.name.find(text);
    if (!w.name.starts_with(conditioner) || at == std::string::npos) continue;
    const std::string before = w.name.substr(0, at);
    if (std::find(all.begin(), all.end(), before) == all.end()) all.push_back(before);
  }
  return all;
}

}  // namespace

LoraNames::LoraNames(const std::vector<Weight>& weights) : encoders_(encoders_of(weights)) {
  std::vector<std::string> names;
  for (const Weight& w : weights)
    if (w.name.starts_with(network)) names.push_back(w.name.substr(network.size()));
  table_ = unet_names(unet_modules(names));
  const auto add_unet = [&](Names& all, const std::string& module, const LoraTarget& target) {
    add(all, "unet.", "lora_unet_", module, target);
    if (const auto theirs = table_.theirs(module + std::string(weight_ending))) add(all, "unet.", "lora_unet_", module_of(*theirs), target);
  };
  for (const Weight& w : weights) {
    const std::string whole = module_of(w.name);
    if (whole.empty()) continue;
    Names& all = w.name.ends_with(weight_ending) ? by_name_ : biases_;
    if (w.name.starts_with(network)) {
      const std::string module = whole.substr(network.size());
      add_unet(all, module, {&w, false});
      if (module.ends_with(".qkv"))
        for (const char letter : {'q', 'k', 'v'}) add_unet(all, module.substr(0, module.size() - 3) + letter, {&w, true});
    } else {
      for (size_t i = 0; i < std::min(encoders_.size(), std::size(dotted_encoders)); ++i)
        if (w.name.starts_with(encoders_[i] + std::string(text)))
          add(all, std::string(dotted_encoders[i]), std::string(flat_encoders[i]), whole.substr(encoders_[i].size()), {&w, false});
    }
  }
}

void LoraNames::add(Names& names, const std::string& dotted, const std::string& flat, const std::string& module, const LoraTarget& target) {
  names.emplace(dotted + module, target);
  names.emplace(flat + one_word(module), target);
}

std::pair<std::string, std::string> LoraNames::own_name(const std::string& weight) const {
  const std::string module = module_of(weight);
  if (module.starts_with(network)) return {"unet.", module.substr(network.size())};
  for (size_t i = 0; i < std::min(encoders_.size(), std::size(dotted_encoders)); ++i)
    if (module.starts_with(encoders_[i] + std::string(text))) return {std::string(dotted_encoders[i]), module.substr(encoders_[i].size())};
  throw std::logic_error("'" + weight + "' is of no part that a LoRA file can name");
}

std::string LoraNames::diffusers_name(const std::string& weight) const {
  const auto [part, module] = own_name(weight);
  const auto theirs = part == "unet." ? table_.theirs(module + std::string(weight_ending)) : std::nullopt;
  return part + (theirs ? module_of(*theirs) : module);
}

std::string LoraNames::kohya_name(const std::string& weight) const {
  const auto [part, module] = own_name(weight);
  const bool two = encoders_.size() > 1;
  if (part == "unet.") return "lora_unet_" + one_word(two ? module : diffusers_name(weight).substr(part.size()));
  return (part == dotted_encoders[1] ? "lora_te2_" : two ? "lora_te1_" : "lora_te_") + one_word(module);
}

std::pair<std::string, std::string> lora_module(const std::string& name) {
  constexpr std::string_view unet = "unet.", encoder = "text_encoder.", second = "text_encoder_2.";
  constexpr std::pair<std::string_view, std::string_view> wrappers[] = {{"model.diffusion_model.", unet},
                                                                        {"diffusion_model.", unet},
                                                                        {"text_encoders.clip_l.transformer.", encoder},
                                                                        {"clip_l.transformer.", encoder},
                                                                        {"text_encoders.clip_g.transformer.", second},
                                                                        {"clip_g.transformer.", second},
                                                                        {"cond_stage_model.transformer.", encoder},
                                                                        {unet, unet},
                                                                        {encoder, encoder},
                                                                        {second, second}};
  constexpr std::string_view first_encoder = "lora_te1_";
  std::string_view rest = name;
  if (rest.starts_with(peft_prefix)) rest.remove_prefix(peft_prefix.size());
  for (const auto& [wrapper, part] : wrappers)
    if (rest.starts_with(wrapper)) return {std::string(part), std::string(rest.substr(wrapper.size()))};
  if (rest.starts_with(first_encoder)) return {"", "lora_te_" + std::string(rest.substr(first_encoder.size()))};
  if (rest.starts_with("lora_")) return {"", std::string(rest)};
  return {std::string(rest.starts_with(text) ? encoder : unet), std::string(rest)};
}

LoraTarget LoraNames::found(const Names& names, const std::string& module) {
  const auto [part, name] = lora_module(module);
  const auto at = names.find(part + name);
  return at == names.end() ? LoraTarget{} : at->second;
}

}  // namespace brume
