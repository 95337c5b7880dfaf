// The settings of PEFT that say the alphas of a file: in the file's metadata, or in adapter_config.json.
#include "brume/interop/peft_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>

#include "brume/config/errors.h"
#include "brume/core/warnings.h"
#include "brume/files/json.h"
#include "brume/files/mapped_file.h"
#include "brume/interop/layouts/lora_names.h"

namespace brume {
namespace {

using nlohmann::ordered_json;

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

PeftSettings settings_of(const std::string& path, const std::map<std::string, std::string>& metadata,
                         const std::map<std::string, WeightChange>& changes) {
  PeftSettings s;
  if (const auto at = metadata.find("lora_adapter_metadata"); at != metadata.end()) {
    s = {fmt::format("{}: its metadata 'lora_adapter_metadata'", path), {}, true};
    s.values = parsed(at->second, s.origin);
    return s;
  }
  const auto of_peft = [](const auto& change) { return change.first.starts_with(peft_prefix) && !change.second.has_alpha; };
  if (!std::any_of(changes.begin(), changes.end(), of_peft)) return s;
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

}  // namespace

void set_peft_alphas(const std::string& path, const std::map<std::string, std::string>& metadata,
                     std::map<std::string, WeightChange>& changes) {
  const PeftSettings s = settings_of(path, metadata, changes);
  if (!s.values.is_object()) return;
  std::vector<AlphaPattern> patterns;
  for (const std::string& part :
       s.parts ? std::vector<std::string>{"unet.", "text_encoder.", "text_encoder_2."} : std::vector<std::string>{""})
    for (AlphaPattern& p : patterns_of(s, part)) patterns.push_back(std::move(p));
  for (auto& [name, change] : changes) {
    const auto [part, module] = lora_module(name);
    const std::string prefix = s.parts ? part : "";
    const auto match = std::find_if(patterns.begin(), patterns.end(), [&, &module = module](const AlphaPattern& p) {
      return p.part == prefix && std::regex_search(module, p.pattern, std::regex_constants::match_continuous);
    });
    if (match != patterns.end()) match->used = true;
    auto alpha = s.values.find(prefix + "lora_alpha");
    if (alpha == s.values.end()) alpha = s.values.find(prefix + "alpha");  // of LoHa and LoKr
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

}  // namespace brume
