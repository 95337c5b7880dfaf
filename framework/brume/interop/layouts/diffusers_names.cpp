#include "brume/interop/layouts/diffusers_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string_view>

namespace brume {
namespace {

using Prefixes = std::vector<std::pair<std::string, std::string>>;  ///< CompVis' and diffusers', with their dots

/// Which parts a network has, by the names of its weights.
struct Parts {
  std::set<std::string> names;
  bool has(const std::string& prefix) const {
    const auto at = names.lower_bound(prefix);
    return at != names.end() && at->starts_with(prefix);
  }
  bool attends(const std::string& prefix) const { return has(prefix + "norm.") || has(prefix + "proj_out."); }
};

/// CompVis numbers residual blocks and samplings in one row, diffusers level by level.
Prefixes stages(const Parts& parts) {
  Prefixes all{{"input_blocks.0.0.", "conv_in."},
               {"out.2.", "conv_out."},
               {"time_embed.0.", "time_embedding.linear_1."},
               {"time_embed.2.", "time_embedding.linear_2."}};
  const auto add = [&](const std::string& from, const std::string& to) { all.emplace_back(from + ".", to + "."); };
  int64_t level = 0, block = 0;
  for (int64_t k = 1; parts.has(fmt::format("input_blocks.{}.", k)); ++k) {
    const std::string here = fmt::format("input_blocks.{}", k);
    if (parts.has(here + ".0.op.")) {
      add(here + ".0.op", fmt::format("down_blocks.{}.downsamplers.0.conv", level++));
      block = 0;
      continue;
    }
    add(here + ".0", fmt::format("down_blocks.{}.resnets.{}", level, block));
    add(here + ".1", fmt::format("down_blocks.{}.attentions.{}", level, block++));
  }
  const bool attends = parts.has("middle_block.2.");
  add("middle_block.0", "mid_block.resnets.0");
  if (attends) add("middle_block.1", "mid_block.attentions.0");
  add(attends ? "middle_block.2" : "middle_block.1", "mid_block.resnets.1");
  level = block = 0;
  for (int64_t k = 0; parts.has(fmt::format("output_blocks.{}.", k)); ++k) {
    const std::string here = fmt::format("output_blocks.{}", k);
    const bool attention = parts.attends(here + ".1.");
    const std::string sampling = here + (attention ? ".2.conv" : ".1.conv");
    add(here + ".0", fmt::format("up_blocks.{}.resnets.{}", level, block));
    if (attention) add(here + ".1", fmt::format("up_blocks.{}.attentions.{}", level, block));
    ++block;
    if (!parts.has(sampling + ".")) continue;
    add(sampling, fmt::format("up_blocks.{}.upsamplers.0.conv", level++));
    block = 0;
  }
  return all;
}

/// The rest of a name, within a residual block.
std::string inner_name(const std::string& rest) {
  static const Prefixes parts{
      {"in_layers.2.", "conv1."}, {"emb_layers.1.", "time_emb_proj."}, {"out_layers.3.", "conv2."}, {"skip_connection.", "conv_shortcut."}};
  for (const auto& [from, to] : parts)
    if (rest.starts_with(from)) return to + rest.substr(from.size());
  return rest;
}

std::string diffusers_name(const Prefixes& prefixes, const std::string& name) {
  const auto at = std::find_if(prefixes.begin(), prefixes.end(), [&](const auto& p) { return name.starts_with(p.first); });
  return at == prefixes.end() ? name : at->second + inner_name(name.substr(at->first.size()));
}

}  // namespace

DiffusersNames::DiffusersNames(const std::vector<Weight>& weights) {
  constexpr std::string_view network = "network.", conditioner = "conditioner.", text = "text_model.", weight = ".weight";
  Parts parts;
  for (const Weight& w : weights)
    if (w.name.starts_with(network)) parts.names.insert(w.name.substr(network.size()));
  const Prefixes prefixes = stages(parts);
  const auto add = [&](const char* dotted, const char* flat, const std::string& name, const Weight& w) {
    const std::string module = name.substr(0, name.size() - weight.size());
    std::string one_word = module;
    std::replace(one_word.begin(), one_word.end(), '.', '_');
    by_name_.emplace(dotted + module, &w);
    by_name_.emplace(flat + one_word, &w);
  };
  for (const Weight& w : weights) {
    if (!w.name.ends_with(weight) || w.tensor.dim() < 2) continue;
    if (w.name.starts_with(network)) {
      const std::string own = w.name.substr(network.size());
      add("unet.", "lora_unet_", own, w);
      add("unet.", "lora_unet_", diffusers_name(prefixes, own), w);
    } else if (const size_t at = w.name.find(text); w.name.starts_with(conditioner) && at != std::string::npos) {
      add("text_encoder.", "lora_te_", w.name.substr(at), w);
    }
  }
}

const Weight* DiffusersNames::find(const std::string& module) const {
  for (const std::string& name : {module, "unet." + module})
    if (const auto at = by_name_.find(name); at != by_name_.end()) return at->second;
  return nullptr;
}

}  // namespace brume
