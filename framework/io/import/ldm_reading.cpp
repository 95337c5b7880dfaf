#include "io/import/ldm_reading.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "config/errors.h"

namespace brume::io {

const std::string* LdmReading::setting(const std::string& name) const {
  const auto at = options.settings.find(name);
  return at == options.settings.end() ? nullptr : &at->second;
}

std::optional<double> LdmReading::number(const std::string& name, std::string_view path) const {
  const std::string* text = setting(name);
  if (!text) return config.number(path);
  char* end = nullptr;
  const double value = std::strtod(text->c_str(), &end);
  if (text->empty() || *end || !(value > 0)) throw ConfigError(fmt::format("{}={}: expected a number above 0", name, *text));
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

}  // namespace brume::io
