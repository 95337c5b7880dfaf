#include "brume/interop/import/flags.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/config/number.h"
#include "brume/config/suggest.h"
#include "brume/config/utf8.h"
#include "brume/config/yaml.h"
#include "brume/weights/network_pickle.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

/// Returns the configuration next to the weights; empty if it does not exist.
fs::path configuration_of(const Source& source, const ImportOptions& options) {
  if (!options.config.empty()) return options.config;
  for (const char* end : {".json", ".yaml", ".yml"})
    if (fs::path file = source.path; fs::is_regular_file(file.replace_extension(end)) && file != source.path) return file;
  return {};
}

std::string stripped(std::string text) {
  const auto outside = [](char c) { return std::string_view(" ()[]").find(c) != std::string_view::npos; };
  while (!text.empty() && outside(text.back())) text.pop_back();
  while (!text.empty() && outside(text.front())) text.erase(0, 1);
  return text;
}

}  // namespace

Flags::Flags(const Source& source, const ImportOptions& options, const std::vector<std::string>& known)
    : source_(source.path.filename().string()), settings_(options.settings) {
  if (const fs::path config = configuration_of(source, options); !config.empty()) {
    const std::string file = config.filename().string();
    const brume::Value root = load_yaml(config);
    if (!root.is_map()) throw ConfigError(fmt::format("{}: is no map of names and values", config.string()));
    for (const char* part : {"arch", "network_kwargs", "model_kwargs"})
      if (const brume::Value* map = root.find(part); map && map->is_map()) take(*map, known, file);
    take(root, known, file);
  }
  if (source.metadata.contains(pickled_class)) {
    brume::Value kept = brume::Value::map();
    for (const auto& [key, text] : source.metadata) kept.set(key, brume::Value::text(text));
    take(kept, known, source_);
  }
  for (const auto& [key, value] : settings_) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      throw ConfigError(fmt::format("{}: unknown setting '{}'{}", source_, key, hint(key, known)));
    values_[key] = brume::Value::text(value);
  }
}

void Flags::take(const brume::Value& map, const std::vector<std::string>& known, const std::string& file) {
  for (const auto& entry : map.entries)
    if (std::find(known.begin(), known.end(), entry.key) != known.end() && !entry.value.is_null() && !entry.value.is_map() &&
        values_.emplace(entry.key, entry.value).second)
      files_[entry.key] = file;
}

std::string Flags::given(const std::string& name) const {
  const brume::Value& value = values_.at(name);
  std::string text = value.scalar;
  if (value.is_list()) {
    for (const brume::Value& item : value.items) text += fmt::format("{}{}", text.empty() ? "" : ", ", item.scalar);
    text = "[" + text + "]";
  }
  return settings_.contains(name) ? fmt::format("{}={}", name, text) : fmt::format("{}: {} = {}", files_.at(name), name, text);
}

void Flags::refuse_difference(const std::string& name) const {
  throw ConfigError(fmt::format("{} is not what the weights of {} have", given(name), source_));
}

void Flags::refuse_missing(const std::string& name, const std::string& why) const {
  throw ConfigError(fmt::format("{}: {}; set {} in the options of the import, or in a JSON or YAML file with the name of the weights",
                                source_, why, name));
}

std::optional<std::string> Flags::text(const std::string& name) const {
  const auto at = values_.find(name);
  if (at == values_.end()) return {};
  if (!at->second.is_scalar()) throw ConfigError(fmt::format("{}: expected one word", given(name)));
  return at->second.scalar;
}

std::optional<int64_t> Flags::integer(const std::string& name) const {
  const auto word = text(name);
  if (!word) return {};
  const auto value = parse_number<int64_t>(*word);
  if (!value) throw ConfigError(fmt::format("{}: expected a whole number", given(name)));
  return value;
}

std::optional<double> Flags::number(const std::string& name) const {
  const auto word = text(name);
  if (!word) return {};
  const auto value = parse_number<double>(*word);
  if (!value) throw ConfigError(fmt::format("{}: expected a number", given(name)));
  return value;
}

std::optional<bool> Flags::truth(const std::string& name) const {
  const auto word = text(name);
  if (!word) return {};
  const std::string lower = lower_case(*word);
  for (const char* yes : {"true", "yes", "t", "y", "1"})
    if (lower == yes) return true;
  for (const char* no : {"false", "no", "f", "n", "0"})
    if (lower == no) return false;
  throw ConfigError(fmt::format("{}: expected true or false", given(name)));
}

std::optional<std::vector<double>> Flags::list(const std::string& name) const {
  const auto at = values_.find(name);
  if (at == values_.end()) return {};
  std::vector<std::string> words;
  if (at->second.is_list()) {
    for (const brume::Value& item : at->second.items) words.push_back(item.scalar);
  } else {
    const std::string all = stripped(at->second.scalar);
    for (size_t start = 0; start < all.size();) {
      const size_t end = std::min(all.find(',', start), all.size());
      words.push_back(stripped(all.substr(start, end - start)));
      start = end + 1;
    }
    if (words.empty()) return {};
  }
  std::vector<double> values;
  for (const std::string& word : words) {
    const auto value = parse_number<double>(word);
    if (!value) throw ConfigError(fmt::format("{}: expected numbers", given(name)));
    values.push_back(*value);
  }
  return values;
}

}  // namespace brume
