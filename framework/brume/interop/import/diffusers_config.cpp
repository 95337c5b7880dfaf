#include "brume/interop/import/diffusers_config.h"

#include <fmt/ranges.h>

#include <cmath>
#include <string_view>
#include <utility>

#include "brume/config/counted.h"
#include "brume/files/json.h"
#include "brume/files/mapped_file.h"

namespace brume {
namespace {

using nlohmann::json;

/// Returns `text` with Python's Infinity, -Infinity and NaN in quotes; what stands in strings is left alone.
std::string in_strict_json(std::string_view text) {
  static constexpr std::pair<std::string_view, std::string_view> words[] = {
      {"-Infinity", "\"-inf\""}, {"Infinity", "\"inf\""}, {"NaN", "\"nan\""}};
  std::string strict;
  strict.reserve(text.size());
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"') quoted = !quoted;
    if (quoted && text[i] == '\\' && i + 1 < text.size()) {
      strict += text[i++];
      strict += text[i];
      continue;
    }
    const std::string_view rest = text.substr(i);
    bool replaced = false;
    for (const auto& [python, ours] : words) {
      if (quoted || !rest.starts_with(python)) continue;
      strict += ours;
      i += python.size() - 1;
      replaced = true;
      break;
    }
    if (!replaced) strict += text[i];
  }
  return strict;
}

}  // namespace

json parse_json(const std::string& text, const std::string& name) {
  if (nests_too_deep(text)) throw ConfigError(fmt::format("{}: is no JSON that is read: its lists and objects nest too deep", name));
  try {
    return json::parse(in_strict_json(text));
  } catch (const json::exception& e) {
    throw ConfigError(fmt::format("{}: is no JSON: {}", name, e.what()));
  }
}

json read_json(const std::filesystem::path& file) {
  if (!std::filesystem::is_regular_file(file)) throw ConfigError(fmt::format("{}: there is no such file", file.string()));
  return parse_json(std::string(MappedFile::open(file.string())->bytes()), file.string());
}

DiffusersConfig::DiffusersConfig(const std::filesystem::path& file, std::string part, const std::string& type)
    : DiffusersConfig(read_json(file), file.string(), std::move(part)) {
  if (!type.empty()) values_["_class_name"] = type;
}

DiffusersConfig::DiffusersConfig(json values, std::string file, std::string part)
    : values_(std::move(values)), file_(std::move(file)), part_(std::move(part)) {
  if (!values_.is_object()) throw ConfigError(fmt::format("{}: is no JSON object", file_));
}

bool DiffusersConfig::counts(const json& value) {
  constexpr double most = 0x7fffffff;
  if (!value.is_number()) return false;
  const double number = value.get<double>();
  return std::abs(number) <= most && number == std::floor(number);
}

std::vector<int64_t> DiffusersConfig::each(const char* key, size_t count, int64_t fallback) const {
  const auto at = values_.find(key);
  if (at == values_.end() || !at->is_array()) return std::vector<int64_t>(count, get<int64_t>(key, fallback));
  const auto list = get<std::vector<int64_t>>(key, {});
  if (list.size() != count) refuse(key, fmt::format("a list of {}", count));
  return list;
}

std::vector<int64_t> DiffusersConfig::widths(const char* key, const std::vector<int64_t>& fallback) const {
  constexpr int64_t most = 65536;
  constexpr size_t levels = 16;
  auto list = get(key, fallback);
  const auto sound = [](int64_t width) { return width >= 1 && width <= most; };
  if (list.empty() || list.size() > levels || !std::all_of(list.begin(), list.end(), sound))
    refuse(key, fmt::format("a list of 1 to {}, each from 1 to {},", counted(levels, "number"), most));
  return list;
}

void DiffusersConfig::absent(const char* key) const {
  const auto at = values_.find(key);
  if (at != values_.end() && !at->is_null() && *at != json(false)) refuse(key, "null");
}

void DiffusersConfig::refuse(const char* key, const std::string& allowed) const {
  throw ConfigError(fmt::format("{}: {} is {}; {} supports {} only", file_, key, values_.contains(key) ? values_[key].dump() : "missing",
                                part_, allowed));
}

int64_t groups_of(const DiffusersConfig& c, const std::vector<int64_t>& widths) {
  const auto groups = c.get<int64_t>("norm_num_groups", 32);
  for (const int64_t width : widths)
    if (groups < 1 || width % groups != 0)
      c.refuse("norm_num_groups", fmt::format("numbers that divide each of block_out_channels, {},", fmt::join(widths, ", ")));
  return groups;
}

}  // namespace brume
