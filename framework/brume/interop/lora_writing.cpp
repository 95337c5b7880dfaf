#include "brume/interop/lora_writing.h"

#include <ATen/ops/full.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "brume/weights/model_hash.h"
#include "brume/weights/model_metadata.h"
#include "brume/weights/safetensors.h"

namespace brume {
namespace {

constexpr const char* kohya_hash = "ss_new_sd_model_hash";

/// Roles whose tensors are called ROLE.weight in kohya's and LyCORIS' files.
const std::set<std::string> modules_of_kohya{"lora_down", "lora_up", "lora_mid", "a1", "a2", "b1", "b2", "bm"};
const std::map<std::string, std::string> roles_of_diffusers{
    {"lora_down", "lora_A.weight"}, {"lora_up", "lora_B.weight"}, {"dora_scale", "lora_magnitude_vector"}};

std::string number_text(double value) { return fmt::format("{}", float(value)); }

std::map<std::string, std::string> kohya_metadata(const std::map<std::string, WeightChange>& changes, const LoraDescription& d) {
  const std::map<std::string, std::string> versions{
      {"SD 1", "sd_v1"}, {"SD 2", "sd_v2"}, {"SDXL", "sdxl_base_v1-0"}, {"SD 3", "sd3"}, {"FLUX", "flux1"}};
  std::map<std::string, std::string> m{{"format", "pt"}};
  if (!changes.empty()) {
    const WeightChange& first = changes.begin()->second;
    const bool plain = first.part("lora_up").defined() && !first.part("dora_scale").defined();
    m["ss_network_module"] = plain ? "networks.lora" : "lycoris.kohya";
    m["ss_network_dim"] = std::to_string(first.rank());
    m["ss_network_alpha"] = number_text(first.has_alpha ? first.alpha : double(first.rank()));
  }
  if (const auto version = versions.find(d.generation); version != versions.end()) m["ss_base_model_version"] = version->second;
  if (!d.base_hash.empty()) m[kohya_hash] = m[metadata_key::base_hash] = d.base_hash;
  if (d.steps > 0) m["ss_steps"] = std::to_string(d.steps);
  if (!d.triggers.empty()) m["modelspec.trigger_phrase"] = d.triggers;
  return m;
}

/// Returns the settings of PEFT, by part of the model: r and lora_alpha of the first change, and those of others that differ.
std::string peft_metadata(const std::map<std::string, WeightChange>& changes, const LoraNames& names) {
  nlohmann::ordered_json all;
  for (const auto& [weight, change] : changes) {
    const std::vector<LayerAlias> modules = names.diffusers_modules(weight);
    const size_t dot = modules.front().layer.find('.') + 1;
    const std::string part = modules.front().layer.substr(0, dot);
    const double alpha = change.has_alpha ? change.alpha : double(change.rank());
    if (!all.contains(part + "r")) {
      all[part + "r"] = change.rank(), all[part + "lora_alpha"] = alpha;
      all[part + "use_dora"] = change.part("dora_scale").defined();
    }
    for (const LayerAlias& alias : modules) {
      const std::string module = alias.layer.substr(dot);
      if (all[part + "r"] != change.rank()) all[part + "rank_pattern"]["^" + module] = change.rank();
      if (all[part + "lora_alpha"] != alpha) all[part + "alpha_pattern"]["^" + module] = alpha;
      all[part + "target_modules"].push_back(module);
    }
  }
  return all.dump();
}

/// Returns DoRA's magnitudes as PEFT keeps them: [out], of a convolution [1, out, 1, 1].
at::Tensor magnitude_of_peft(const at::Tensor& magnitude, const WeightChange& change) {
  const at::Tensor flat = magnitude.flatten(), down = change.part("lora_down");
  return down.defined() && down.dim() == 4 ? flat.view({1, -1, 1, 1}) : flat;
}

/// Returns the part of a change that one module of another program has.
WeightChange seen(const WeightChange& change, const LayerView& view) {
  const std::set<std::string> of_rows{"lora_up", "hada_w1_a", "hada_w2_a", "dora_scale"};
  WeightChange all = change;
  for (auto& [role, tensor] : all.parts)
    if (of_rows.contains(role))
      tensor = view.of(tensor);
    else if (view.order == LayerView::Order::flux)
      tensor = tensor.flatten(1);  // of a convolution of patches, which is a matrix there
  return all;
}

}  // namespace

bool can_write(LoraLayout layout, const std::map<std::string, WeightChange>& changes) {
  if (layout == LoraLayout::kohya) return true;
  return std::all_of(changes.begin(), changes.end(), [](const auto& change) {
    const auto& parts = change.second.parts;
    return std::all_of(parts.begin(), parts.end(), [](const auto& part) { return roles_of_diffusers.contains(part.first); });
  });
}

void write_lora(const std::string& path, LoraLayout layout, const std::map<std::string, WeightChange>& changes, const LoraNames& names,
                const LoraDescription& description) {
  if (!can_write(layout, changes)) throw std::logic_error("diffusers has no names for this kind of adapter");
  NamedTensors tensors;
  const auto add = [&](const std::string& name, const at::Tensor& t) { tensors.push_back({name, t.detach().to(at::kFloat).contiguous()}); };
  const auto add_kohya = [&](const std::string& module, const WeightChange& change) {
    for (const auto& [role, tensor] : change.parts)
      add(fmt::format("{}.{}{}", module, role, modules_of_kohya.contains(role) ? ".weight" : ""), tensor);
    if (change.has_alpha) add(module + ".alpha", at::full({}, change.alpha, at::kFloat));
  };
  const auto add_diffusers = [&](const std::string& module, const WeightChange& change) {
    for (const auto& [role, tensor] : change.parts)
      add(fmt::format("{}.{}", module, roles_of_diffusers.at(role)), role == "dora_scale" ? magnitude_of_peft(tensor, change) : tensor);
  };
  for (const auto& [weight, change] : changes)
    if (layout == LoraLayout::kohya) {
      const LayerAlias module = names.kohya_module(weight, change.part("lokr_w1").defined());
      add_kohya(module.layer, seen(change, module.view));
    } else {
      for (const LayerAlias& module : names.diffusers_modules(weight)) add_diffusers(module.layer, seen(change, module.view));
    }
  std::map<std::string, std::string> metadata = kohya_metadata(changes, description);
  if (layout == LoraLayout::diffusers) metadata["lora_adapter_metadata"] = peft_metadata(changes, names);
  write_safetensors(path, tensors, metadata);
}

std::string base_hash_of(const std::map<std::string, std::string>& metadata) {
  for (const char* key : {metadata_key::base_hash, kohya_hash})
    if (const auto found = metadata.find(key); found != metadata.end() && !found->second.empty()) return found->second;
  return "";
}

}  // namespace brume
