#include "brume/interop/import/ldm_reading.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/number.h"
#include "brume/config/suggest.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

/// Returns what can be set.
const std::vector<std::string>& known_settings() {
  static const std::vector<std::string> all{"tokenizer",  "text_heads", "num_heads",    "num_head_channels",
                                            "size",       "ema",        "scale_factor", "parameterization",
                                            "null_class", "vae",        "text_encoder"};
  return all;
}

/// Returns the configuration that is named, or the one with the name of the file.
LdmConfig config_of(const Source& source, const ImportOptions& options, std::vector<std::string>& losses) {
  if (!options.config.empty()) {
    LdmConfig config(options.config);
    if (!config.is_ldm())
      throw ConfigError(fmt::format("{}: is no configuration of latent diffusion: it has no model.target and model.params", config.file()));
    return config;
  }
  for (const char* extension : {".yaml", ".yml"}) {
    const fs::path yaml = fs::path(source.path).replace_extension(extension);
    if (!fs::is_regular_file(yaml)) continue;
    if (LdmConfig config(yaml); config.is_ldm()) return config;
    losses.push_back(fmt::format("{} next to it is no configuration of latent diffusion and was not read", yaml.filename().string()));
  }
  return {};
}

}  // namespace

bool any_begins(const NamedTensors& tensors, std::string_view prefix) {
  return std::any_of(tensors.begin(), tensors.end(), [&](const NamedTensor& t) { return t.name.starts_with(prefix); });
}

LdmReading::LdmReading(const Source& from, const ImportOptions& said) : source(from), options(said) {
  for (const auto& [name, value] : options.settings)
    if (std::find(known_settings().begin(), known_settings().end(), name) == known_settings().end())
      refuse(fmt::format("unknown setting '{}'{}", name, hint(name, known_settings())));
  config = config_of(source, options, losses);
}

const std::string* LdmReading::setting(const std::string& name) const {
  const auto at = options.settings.find(name);
  return at == options.settings.end() ? nullptr : &at->second;
}

std::optional<double> LdmReading::number(const std::string& name, std::string_view path) const {
  const std::string* text = setting(name);
  if (!text) return config.number(path);
  const auto value = parse_number<double>(*text);
  if (!value || !(*value > 0) || !std::isfinite(*value)) throw ConfigError(fmt::format("{}={}: expected a number above 0", name, *text));
  return value;
}

std::optional<int64_t> LdmReading::integer(const std::string& name, std::string_view path) const {
  const std::optional<double> value = number(name, path);
  if (value && *value != std::floor(*value)) throw ConfigError(fmt::format("{}={}: expected a whole number", name, *value));
  return value ? std::optional(int64_t(*value)) : std::nullopt;
}

std::optional<bool> LdmReading::truth(const std::string& name) const {
  const std::string* text = setting(name);
  if (!text) return {};
  if (*text != "true" && *text != "false") throw ConfigError(fmt::format("{}={}: expected true or false", name, *text));
  return *text == "true";
}

void LdmReading::refuse(const std::string& what) const { throw ConfigError(fmt::format("{}: {}", source.path.string(), what)); }

}  // namespace brume
