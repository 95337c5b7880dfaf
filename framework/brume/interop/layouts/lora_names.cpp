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

LoraTarget LoraNames::find(const std::string& module) const {
  for (const std::string& name : {module, "unet." + module})
    if (const auto at = by_name_.find(name); at != by_name_.end()) return at->second;
  return {};
}

}  // namespace brume
