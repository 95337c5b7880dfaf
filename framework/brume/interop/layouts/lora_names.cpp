#include "brume/interop/layouts/lora_names.h"

#include <algorithm>
#include <set>
#include <stdexcept>
#include <string_view>

#include "brume/interop/layouts/diffusers_unet.h"

namespace brume {
namespace {

constexpr std::string_view network = "network.", conditioner = "conditioner.", text = "text_model.";
constexpr std::string_view weight_ending = ".weight", bias_ending = ".bias";
constexpr std::string_view dotted_encoders[] = {"text_encoder.", "text_encoder_2.", "text_encoder_3."},
                           flat_encoders[] = {"lora_te_", "lora_te2_", "lora_te3_"};
constexpr std::string_view t5_text = "encoder.block.";
const std::string own_prefix = "brume.";  ///< of a module by brume's name, where a file may mean another program's

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

bool in_loras(const Weight& w) {
  const bool part = w.name.starts_with(network) || (w.name.starts_with(conditioner) && w.name.find(text) != std::string::npos);
  const bool table =
      w.name.ends_with("_embedding.weight") || w.name.ends_with(".embedding_table.weight") || w.name.ends_with(".label_emb.weight");
  return part && !table && w.tensor.dim() >= 2 && w.tensor.is_floating_point() && w.name.ends_with(weight_ending);
}

LoraNames::LoraNames(const std::vector<Weight>& weights) : encoders_(encoders_of(weights)) {
  std::vector<Weight> own;
  std::vector<const Weight*> whole;
  for (const Weight& w : weights) {
    if (w.name.starts_with(network))
      own.push_back({w.name.substr(network.size()), w.tensor}), whole.push_back(&w);
    else
      add_text(w);
  }
  add_network(own, whole);
}

LoraNames::Names& LoraNames::names_of(const Weight& weight) { return weight.name.ends_with(weight_ending) ? by_name_ : biases_; }

void LoraNames::add_network(const std::vector<Weight>& own, const std::vector<const Weight*>& whole) {
  std::vector<std::string> names;
  names.reserve(own.size());
  for (const Weight& w : own) names.push_back(w.name);
  table_ = unet_names(unet_modules(names));
  const TransformerLora transformer(own);
  const auto add_unet = [&](Names& all, const std::string& module, const LoraTarget& target) {
    add(all, "unet.", "lora_unet_", module, target);
    if (const auto theirs = table_.theirs(module + std::string(weight_ending))) add(all, "unet.", "lora_unet_", module_of(*theirs), target);
  };
  for (size_t i = 0; i < own.size(); ++i) {
    const std::string module = module_of(own[i].name);
    if (module.empty()) continue;
    Names& all = names_of(*whole[i]);
    // FLUX's own names come first: one of its layers has the name that brume's has, with its rows in another order.
    for (const LayerAlias& alias : transformer.aliases(own[i])) add(all, "unet.", "lora_unet_", alias.layer, {whole[i], false, alias.view});
    if (own[i].name.ends_with(weight_ending)) {
      if (const auto theirs = transformer.of_diffusers(own[i]); !theirs.empty()) diffusers_[module] = theirs;
      if (const auto theirs = transformer.of_flux(own[i])) flux_[module] = *theirs;
    }
    add_unet(all, module, {whole[i], false});
    add(all, "unet.", "lora_unet_", own_prefix + module, {whole[i], false});
    if (module.ends_with(".qkv"))
      for (const char letter : {'q', 'k', 'v'}) add_unet(all, module.substr(0, module.size() - 3) + letter, {whole[i], true});
  }
}

void LoraNames::add_text(const Weight& w) {
  const std::string whole = module_of(w.name);
  if (whole.empty()) return;
  const size_t count = std::min(encoders_.size(), std::size(dotted_encoders) - 1);
  for (size_t i = 0; i < count; ++i)
    if (w.name.starts_with(encoders_[i] + std::string(text)) || w.name == encoders_[i] + "text_projection.weight")
      add(names_of(w), std::string(dotted_encoders[i]), std::string(flat_encoders[i]), whole.substr(encoders_[i].size()), {&w, false});
  const size_t t5 = w.name.find(t5_text);
  if (!w.name.starts_with(conditioner) || t5 == std::string::npos) return;
  // T5 comes after CLIP's encoders; kohya's trainers call it the third even if there is one of them.
  for (const size_t place : std::set<size_t>{count, std::size(dotted_encoders) - 1})
    add(names_of(w), std::string(dotted_encoders[place]), std::string(flat_encoders[place]), whole.substr(t5), {&w, false});
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

std::vector<LayerAlias> LoraNames::diffusers_modules(const std::string& weight) const {
  const auto [part, module] = own_name(weight);
  if (part != "unet.") return {{part + module, {}}};
  if (const auto theirs = diffusers_.find(module); theirs != diffusers_.end()) {
    std::vector<LayerAlias> all = theirs->second;
    for (LayerAlias& alias : all) alias.layer.insert(0, "transformer.");
    return all;
  }
  const auto theirs = table_.theirs(module + std::string(weight_ending));
  return {{part + (theirs ? module_of(*theirs) : module), {}}};
}

LayerAlias LoraNames::kohya_module(const std::string& weight, bool ordered) const {
  const auto [part, module] = own_name(weight);
  const bool numbered = encoders_.size() > 1 || !diffusers_.empty();  // the text encoders; the network has its own program's names then
  if (part != "unet.") return {(part == dotted_encoders[1] ? "lora_te2_" : numbered ? "lora_te1_" : "lora_te_") + one_word(module), {}};
  const auto flux = flux_.find(module);
  if (flux == flux_.end())
    return {"lora_unet_" + one_word(numbered ? module : diffusers_modules(weight).front().layer.substr(part.size())), {}};
  if (ordered && module == "final_layer.linear") return {"lora_unet_" + one_word(own_prefix + module), {}};
  return {"lora_unet_" + one_word(flux->second.layer), flux->second.view};
}

std::pair<std::string, std::string> lora_module(const std::string& name) {
  constexpr std::string_view unet = "unet.", encoder = "text_encoder.", second = "text_encoder_2.", third = "text_encoder_3.";
  constexpr std::pair<std::string_view, std::string_view> wrappers[] = {{"model.diffusion_model.", unet},
                                                                        {"diffusion_model.", unet},
                                                                        {"text_encoders.clip_l.transformer.", encoder},
                                                                        {"clip_l.transformer.", encoder},
                                                                        {"text_encoders.clip_g.transformer.", second},
                                                                        {"clip_g.transformer.", second},
                                                                        {"text_encoders.t5xxl.transformer.", third},
                                                                        {"t5xxl.transformer.", third},
                                                                        {"cond_stage_model.transformer.", encoder},
                                                                        {"transformer.", unet},
                                                                        {unet, unet},
                                                                        {encoder, encoder},
                                                                        {second, second},
                                                                        {third, third}};
  constexpr std::pair<std::string_view, std::string_view> flat[] = {
      {"lora_te1_", "lora_te_"}, {"lora_transformer_", "lora_unet_"}, {"lycoris_", "lora_unet_"}};
  const auto unwrapped = [](std::string_view n) { return n.starts_with(peft_prefix) ? n.substr(peft_prefix.size()) : n; };
  const std::string_view rest = unwrapped(name);
  for (const auto& [wrapper, part] : wrappers)
    if (rest.starts_with(wrapper)) return {std::string(part), std::string(unwrapped(rest.substr(wrapper.size())))};
  for (const auto& [theirs, ours] : flat)
    if (rest.starts_with(theirs)) return {"", std::string(ours) + std::string(rest.substr(theirs.size()))};
  if (rest.starts_with("lora_")) return {"", std::string(rest)};
  return {std::string(rest.starts_with(text) ? encoder : unet), std::string(rest)};
}

LoraTarget LoraNames::found(const Names& names, const std::string& module) {
  const auto [part, name] = lora_module(module);
  const auto at = names.find(part + name);
  return at == names.end() ? LoraTarget{} : at->second;
}

}  // namespace brume
