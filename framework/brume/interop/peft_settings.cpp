// The settings of PEFT that say the alphas of a file: in the file's metadata, or in adapter_config.json.
#include "brume/interop/peft_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>

#include "brume/config/errors.h"
#include "brume/core/warnings.h"
#include "brume/files/json.h"
#include "brume/files/mapped_file.h"
#include "brume/interop/input_rotation.h"
#include "brume/interop/layouts/lora_names.h"

namespace brume {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view transformer = "transformer.";  ///< the part that lora_module() calls "unet."

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
    const ordered_json given = parsed(at->second, s.origin);
    s.values = ordered_json::object();
    for (const auto& [key, value] : given.items())
      s.values[key.starts_with(transformer) ? "unet." + key.substr(transformer.size()) : key] = value;
    return s;
  }
  const auto of_peft = [](const auto& change) { return change.first.starts_with(peft_prefix) && !change.second.has_alpha; };
  if (!std::any_of(changes.begin(), changes.end(), of_peft)) return s;
  const std::filesystem::path config = std::filesystem::path(path).parent_path() / "adapter_config.json";
  if (!std::filesystem::is_regular_file(config)) {
    warn(fmt::format("{}: the settings of PEFT are not in this file, and there is no adapter_config.json next to it: {}", path,
                     std::any_of(changes.begin(), changes.end(), [](const auto& c) { return is_input_rotation(c.second); })
                         ? "those that PEFT has if nothing is given are taken"
                         : "alpha = rank is taken"));
    return s;
  }
  s.origin = config.string();
  s.values = parsed(MappedFile::open(s.origin)->bytes(), s.origin);
  return s;
}

/// Compiles a key of alpha_pattern or rank_pattern as PEFT matches it: from the beginning of a module's name, after any levels. The matcher
/// is the one of linear time, as files come from anywhere.
std::regex pattern_of(const std::string& key, const std::string& table, const std::string& origin) {
  constexpr size_t longest = 1000;
  try {
    if (key.size() > longest) throw std::regex_error(std::regex_constants::error_space);
    return std::regex("(.*\\.)?(" + key + ")$", std::regex::ECMAScript | std::regex::nosubs | std::regex_constants::__polynomial);
  } catch (const std::regex_error&) {
    throw ConfigError(
        fmt::format("{}: {} has the key '{}', which is no regular expression that brume reads", origin, table, key.substr(0, longest)));
  }
}

/// One key of an alpha_pattern or rank_pattern.
struct Pattern {
  std::string part, key;
  std::regex pattern;
  double value;
  bool used = false;
};

std::vector<Pattern> patterns_of(const PeftSettings& s, const std::string& table) {
  std::vector<Pattern> all;
  for (const std::string& part :
       s.parts ? std::vector<std::string>{"unet.", "text_encoder.", "text_encoder_2.", "text_encoder_3."} : std::vector<std::string>{""}) {
    const auto found = s.values.find(part + table);
    if (found == s.values.end() || !found->is_object()) continue;
    for (const auto& [key, value] : found->items()) {
      if (!value.is_number()) throw ConfigError(fmt::format("{}: {} '{}' is {}, not a number", s.origin, table, key, value.dump()));
      all.push_back({part, key, pattern_of(key, table, s.origin), value.get<double>()});
    }
  }
  return all;
}

/// Returns the number of the first pattern that a module matches, else that of one of the keys; nothing without either.
std::optional<double> number_of(const PeftSettings& s, std::vector<Pattern>& patterns, const std::string& part, const std::string& module,
                                std::initializer_list<const char*> keys) {
  const auto match = std::find_if(patterns.begin(), patterns.end(), [&](const Pattern& p) {
    return p.part == part && std::regex_search(module, p.pattern, std::regex_constants::match_continuous);
  });
  if (match != patterns.end()) {
    match->used = true;
    return match->value;
  }
  for (const char* key : keys)
    if (const auto at = s.values.find(part + key); at != s.values.end() && at->is_number()) return at->get<double>();
  return {};
}

/// Sets how OFT makes its rotations: by the series, unless the settings say otherwise.
void set_rotations(const PeftSettings& s, std::map<std::string, WeightChange>& changes) {
  const auto value = [&](const std::string& part, const char* key) {
    const auto at = s.values.is_object() ? s.values.find(part + key) : s.values.end();
    return at == s.values.end() ? ordered_json() : *at;
  };
  for (auto& [name, change] : changes) {
    if (!change.part("oft_R").defined()) continue;
    const std::string part = s.parts ? lora_module(name).first : "";
    const ordered_json terms = value(part, "num_cayley_neumann_terms"), bound = value(part, "eps");
    constexpr int64_t usual_terms = 5;
    constexpr double usual_bound = 6e-5;
    const int64_t count = terms.is_number_integer() ? terms.get<int64_t>() : usual_terms;
    if (count < 1 || count > 1000)
      throw ConfigError(fmt::format("{}: num_cayley_neumann_terms is {}; 1 to 1000 are read", s.origin, count));
    change.neumann_terms = value(part, "use_cayley_neumann") == ordered_json(false) ? 0 : count;
    if (value(part, "coft") == ordered_json(true)) change.rotation_bound = bound.is_number() ? bound.get<double>() : usual_bound;
  }
}

}  // namespace

void set_peft_alphas(const std::string& path, const std::map<std::string, std::string>& metadata,
                     std::map<std::string, WeightChange>& changes) {
  const PeftSettings s = settings_of(path, metadata, changes);
  if (s.values.is_object() || s.values.is_null()) set_rotations(s, changes);
  if (!s.values.is_object()) return;
  std::vector<Pattern> alphas = patterns_of(s, "alpha_pattern"), ranks = patterns_of(s, "rank_pattern");
  for (auto& [name, change] : changes) {
    const auto [whole, module] = lora_module(name);
    const std::string part = s.parts ? whole : "";
    const auto alpha = number_of(s, alphas, part, module, {"lora_alpha", "alpha"});  // the second is of LoHa and LoKr
    if (change.has_alpha || !alpha) continue;
    change.has_alpha = true, change.alpha = *alpha;
    const auto rooted = s.values.find(part + "use_rslora");
    change.rank_power = rooted != s.values.end() && *rooted == ordered_json(true) ? 0.5 : 1;
    if (change.kind() == "LoKr" && change.rank() == 0)
      change.given_rank = std::max<int64_t>(0, std::llround(number_of(s, ranks, part, module, {"r"}).value_or(0)));
  }
  for (const Pattern& p : alphas)
    if (!p.used)
      warn(fmt::format("{}: alpha_pattern '{}' has no effect: it matches none of the modules that the LoRA changes", s.origin, p.key));
}

}  // namespace brume
