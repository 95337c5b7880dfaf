// The names, of the weight "mid_block.attentions.0.proj_in" of diffusers' U-Net:
//
//   kohya            lora_unet_mid_block_attentions_0_proj_in.lora_down.weight, .lora_up.weight, .alpha;   lora_te_… of the text encoder
//   diffusers, PEFT  unet.mid_block.attentions.0.proj_in.lora_A.weight, .lora_B.weight;   text_encoder.…; alpha in the file's metadata
//   diffusers, old   unet.….proj_in.lora.down.weight, ….attn1.processor.to_q_lora.down.weight, ….q_proj.lora_linear_layer.down.weight
//   PEFT alone       base_model.model.mid_block.attentions.0.proj_in.lora_A.weight, ….lora_A.ADAPTER.weight; alpha in adapter_config.json
//   ComfyUI          diffusion_model.middle_block.1.proj_in.lora_down.weight, .lora_up.weight, .alpha
#include "brume/interop/lora_file.h"

#include <ATen/ops/einsum.h>
#include <ATen/ops/matmul.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <set>

#include "brume/config/errors.h"
#include "brume/core/warnings.h"
#include "brume/files/json.h"
#include "brume/files/mapped_file.h"
#include "brume/interop/layouts/lora_names.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace {

using nlohmann::ordered_json;

enum class Role { down, up, mid, alpha };
constexpr std::array<std::pair<std::string_view, Role>, 13> endings{{{".lora_down.weight", Role::down},
                                                                     {".lora_up.weight", Role::up},
                                                                     {".lora_mid.weight", Role::mid},
                                                                     {".lora_A.weight", Role::down},
                                                                     {".lora_B.weight", Role::up},
                                                                     {".lora.down.weight", Role::down},
                                                                     {".lora.up.weight", Role::up},
                                                                     {".lora_linear_layer.down.weight", Role::down},
                                                                     {".lora_linear_layer.up.weight", Role::up},
                                                                     {"_lora.down.weight", Role::down},
                                                                     {"_lora.up.weight", Role::up},
                                                                     {".lora_linear_layer.alpha", Role::alpha},
                                                                     {".alpha", Role::alpha}}};

/// Returns the layer that diffusers' first LoRA changed, of the name that its processor had for it.
std::string of_processor(std::string module) {
  if (const size_t at = module.find(".processor."); at != std::string::npos) module.erase(at, std::string_view(".processor").size());
  if (module.find(".self_attn.to_") != std::string::npos) {
    if (module.ends_with(".to_out")) return module.substr(0, module.size() - 6) + "out_proj";
    return module.substr(0, module.size() - 4) + module.back() + "_proj";
  }
  return module.ends_with(".to_out") ? module + ".0" : module;
}

/// A tensor's name, taken apart.
struct TensorName {
  std::string module;
  Role role;
  std::string adapter;  ///< PEFT's name of it; empty for most
};

/// ".lora_A.ADAPTER.weight" of PEFT.
std::optional<TensorName> adapter_name(std::string_view name) {
  constexpr std::string_view last = ".weight";
  if (!name.ends_with(last)) return {};
  name.remove_suffix(last.size());
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {};
  const std::string_view module = name.substr(0, dot);
  for (const auto& [ending, role] : {std::pair(std::string_view(".lora_A"), Role::down), {".lora_B", Role::up}})
    if (module.ends_with(ending))
      return TensorName{std::string(module.substr(0, module.size() - ending.size())), role, std::string(name.substr(dot + 1))};
  return {};
}

std::optional<TensorName> taken_apart(std::string_view name) {
  for (const auto& [ending, role] : endings) {
    if (!name.ends_with(ending)) continue;
    const std::string module(name.substr(0, name.size() - ending.size()));
    return TensorName{ending.starts_with("_lora") ? of_processor(module) : module, role, ""};
  }
  return adapter_name(name);
}

/// The settings of PEFT that belong to a file: "unet.lora_alpha" of diffusers' metadata, "lora_alpha" of adapter_config.json.
struct PeftSettings {
  std::string origin;   ///< for messages
  ordered_json values;  ///< null without values
  bool parts = false;   ///< keys begin with the part of the model: "unet."
};

ordered_json parsed(std::string_view text, const std::string& origin) {
  ordered_json json = nests_too_deep(text) ? ordered_json() : ordered_json::parse(text.begin(), text.end(), nullptr, false);
  if (!json.is_object()) throw ConfigError(fmt::format("{} is no JSON object", origin));
  return json;
}

PeftSettings settings_of(const std::string& path, const std::map<std::string, std::string>& metadata, const LoraFile& file) {
  PeftSettings s;
  if (const auto at = metadata.find("lora_adapter_metadata"); at != metadata.end()) {
    s = {fmt::format("{}: its metadata 'lora_adapter_metadata'", path), {}, true};
    s.values = parsed(at->second, s.origin);
    return s;
  }
  const auto of_peft = [](const auto& change) { return change.first.starts_with(peft_prefix) && !change.second.has_alpha; };
  if (!std::any_of(file.changes.begin(), file.changes.end(), of_peft)) return s;
  const std::filesystem::path config = std::filesystem::path(path).parent_path() / "adapter_config.json";
  if (!std::filesystem::is_regular_file(config)) {
    warn(fmt::format("{}: alpha is not in this file of PEFT, and there is no adapter_config.json next to it: alpha = rank is taken", path));
    return s;
  }
  s.origin = config.string();
  s.values = parsed(MappedFile::open(s.origin)->bytes(), s.origin);
  return s;
}

/// Compiles a key of alpha_pattern as PEFT matches it: from the beginning of a module's name, after any levels. The matcher is the one of
/// linear time, as files come from anywhere.
std::regex pattern_of(const std::string& key, const std::string& origin) {
  constexpr size_t longest = 1000;
  try {
    if (key.size() > longest) throw std::regex_error(std::regex_constants::error_space);
    return std::regex("(.*\\.)?(" + key + ")$", std::regex::ECMAScript | std::regex::nosubs | std::regex_constants::__polynomial);
  } catch (const std::regex_error&) {
    throw ConfigError(
        fmt::format("{}: alpha_pattern has the key '{}', which is no regular expression that brume reads", origin, key.substr(0, longest)));
  }
}

/// One key of an alpha_pattern.
struct AlphaPattern {
  std::string part, key;
  std::regex pattern;
  double alpha;
  bool used = false;
};

std::vector<AlphaPattern> patterns_of(const PeftSettings& s, const std::string& part) {
  const auto found = s.values.find(part + "alpha_pattern");
  std::vector<AlphaPattern> all;
  if (found == s.values.end() || !found->is_object()) return all;
  for (const auto& [key, value] : found->items()) {
    if (!value.is_number()) throw ConfigError(fmt::format("{}: alpha_pattern '{}' is {}, not a number", s.origin, key, value.dump()));
    all.push_back({part, key, pattern_of(key, s.origin), value.get<double>()});
  }
  return all;
}

/// Sets the alphas that PEFT keeps outside the tensors: those of alpha_pattern, else lora_alpha.
void set_alphas(const PeftSettings& s, LoraFile& file) {
  if (!s.values.is_object()) return;
  std::vector<AlphaPattern> patterns;
  for (const std::string& part : s.parts ? std::vector<std::string>{"unet.", "text_encoder."} : std::vector<std::string>{""})
    for (AlphaPattern& p : patterns_of(s, part)) patterns.push_back(std::move(p));
  for (auto& [name, change] : file.changes) {
    const auto [part, module] = lora_module(name);
    const std::string prefix = s.parts ? part : "";
    const auto match = std::find_if(patterns.begin(), patterns.end(), [&, &module = module](const AlphaPattern& p) {
      return p.part == prefix && std::regex_search(module, p.pattern, std::regex_constants::match_continuous);
    });
    if (match != patterns.end()) match->used = true;
    const auto alpha = s.values.find(prefix + "lora_alpha");
    const bool common = alpha != s.values.end() && alpha->is_number();
    if (change.has_alpha || (match == patterns.end() && !common)) continue;
    change.has_alpha = true;
    change.alpha = match != patterns.end() ? match->alpha : alpha->get<double>();
    const auto rooted = s.values.find(prefix + "use_rslora");
    change.rank_power = rooted != s.values.end() && *rooted == ordered_json(true) ? 0.5 : 1;
  }
  for (const AlphaPattern& p : patterns)
    if (!p.used)
      warn(fmt::format("{}: alpha_pattern '{}' has no effect: it matches none of the modules that the LoRA changes", s.origin, p.key));
}

}  // namespace

double LoraChange::scale() const { return has_alpha ? alpha / std::pow(double(down.size(0)), rank_power) : 1; }

std::vector<int64_t> LoraChange::shape() const {
  std::vector<int64_t> shape = down.sizes().vec();
  shape[0] = up.size(0);
  if (mid.defined()) shape[2] = mid.size(2), shape[3] = mid.size(3);
  return shape;
}

bool LoraChange::fits(const at::Tensor& weight) const {
  const std::vector<int64_t> own = shape();
  int64_t numel = 1;
  for (const int64_t n : own) numel *= n;
  return own[0] == weight.size(0) && numel == weight.numel();
}

at::Tensor LoraChange::product() const {
  const at::Tensor a = up.flatten(1).to(at::kFloat), b = down.flatten(1).to(at::kFloat);
  return mid.defined() ? at::einsum("nmkl,in,mj->ijkl", {mid.to(at::kFloat), a, b}) : at::matmul(a, b);
}

bool is_lora_matrix(std::string_view name) {
  const auto parts = taken_apart(name);
  return parts && parts->role != Role::alpha;
}

LoraFile read_lora(const std::string& path) {
  LoraFile file;
  std::map<std::string, std::string> metadata;
  std::set<std::string> adapters;
  for (const NamedTensor& t : load_tensors(path, &metadata)) {
    const auto parts = taken_apart(t.name);
    if (!parts || (parts->role == Role::alpha && t.tensor.numel() != 1)) {
      file.unknown.push_back(t.name);
      continue;
    }
    if (!parts->adapter.empty()) adapters.insert(parts->adapter);
    LoraChange& change = file.changes[parts->module];
    switch (parts->role) {
      case Role::down: change.down = t.tensor; break;
      case Role::up: change.up = t.tensor; break;
      case Role::mid: change.mid = t.tensor; break;
      case Role::alpha: change.alpha = t.tensor.to(at::kDouble).item<double>(), change.has_alpha = true;
    }
  }
  if (adapters.size() > 1)
    throw ConfigError(fmt::format("{}: holds {} adapters ({}), and one is expected", path, adapters.size(), fmt::join(adapters, ", ")));
  set_alphas(settings_of(path, metadata, file), file);
  return file;
}

}  // namespace brume
