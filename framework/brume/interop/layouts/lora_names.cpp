#include "brume/interop/layouts/lora_names.h"

#include <algorithm>
#include <string_view>

#include "brume/interop/layouts/diffusers_unet.h"

namespace brume {
namespace {

constexpr std::string_view network = "network.", conditioner = "conditioner.", text = "text_model.", ending = ".weight";

}  // namespace

LoraNames::LoraNames(const std::vector<Weight>& weights) {
  std::vector<std::string> names;
  for (const Weight& w : weights)
    if (w.name.starts_with(network)) names.push_back(w.name.substr(network.size()));
  const NameTable table = unet_names(unet_modules(names));
  const auto add_unet = [&](const std::string& name, const LoraTarget& target) {
    add("unet.", "lora_unet_", name, target);
    if (const auto theirs = table.theirs(name)) add("unet.", "lora_unet_", *theirs, target);
  };
  for (const Weight& w : weights) {
    if (!w.name.ends_with(ending) || w.tensor.dim() < 2) continue;
    if (w.name.starts_with(network)) {
      const std::string name = w.name.substr(network.size());
      add_unet(name, {&w, false});
      if (const size_t at = name.find(".qkv."); at != std::string::npos)
        for (const char letter : {'q', 'k', 'v'}) add_unet(std::string(name).replace(at + 1, 3, 1, letter), {&w, true});
    } else if (const size_t at = w.name.find(text); w.name.starts_with(conditioner) && at != std::string::npos) {
      add("text_encoder.", "lora_te_", w.name.substr(at), {&w, false});
    }
  }
}

void LoraNames::add(const char* dotted, const char* flat, const std::string& name, const LoraTarget& target) {
  const std::string module = name.substr(0, name.size() - ending.size());
  std::string one_word = module;
  std::replace(one_word.begin(), one_word.end(), '.', '_');
  by_name_.emplace(dotted + module, target);
  by_name_.emplace(flat + one_word, target);
}

std::pair<std::string, std::string> lora_module(const std::string& name) {
  constexpr std::string_view unet = "unet.", encoder = "text_encoder.";
  constexpr std::pair<std::string_view, std::string_view> wrappers[] = {{"model.diffusion_model.", unet},
                                                                        {"diffusion_model.", unet},
                                                                        {"text_encoders.clip_l.transformer.", encoder},
                                                                        {"clip_l.transformer.", encoder},
                                                                        {"cond_stage_model.transformer.", encoder},
                                                                        {unet, unet},
                                                                        {encoder, encoder}};
  constexpr std::string_view first_encoder = "lora_te1_";
  std::string_view rest = name;
  if (rest.starts_with(peft_prefix)) rest.remove_prefix(peft_prefix.size());
  for (const auto& [wrapper, part] : wrappers)
    if (rest.starts_with(wrapper)) return {std::string(part), std::string(rest.substr(wrapper.size()))};
  if (rest.starts_with(first_encoder)) return {"", "lora_te_" + std::string(rest.substr(first_encoder.size()))};
  if (rest.starts_with("lora_")) return {"", std::string(rest)};
  return {std::string(rest.starts_with(text) ? encoder : unet), std::string(rest)};
}

LoraTarget LoraNames::find(const std::string& module) const {
  const auto [part, name] = lora_module(module);
  const auto at = by_name_.find(part + name);
  return at == by_name_.end() ? LoraTarget{} : at->second;
}

}  // namespace brume
