#include "brume/weights/model_metadata.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "brume/config/number.h"
#include "brume/config/version.h"
#include "brume/config/yaml.h"

namespace brume {
namespace {

std::string key_of(std::string_view name) { return fmt::format("brume.{}", name); }

ModelMetadata::Entries common(const char* format, int64_t step) {
  return {{"format", format},
          {key_of("format"), std::to_string(model_format)},
          {key_of("version"), version()},
          {metadata_key::step, std::to_string(step)}};
}

}  // namespace

ModelMetadata ModelMetadata::of_model(int64_t step) { return ModelMetadata(common("brume", step)); }

ModelMetadata ModelMetadata::of_training(int64_t step, const Value& config) {
  ModelMetadata metadata(common("brume-training", step));
  metadata.set("config", config);
  return metadata;
}

const std::vector<std::string>& ModelMetadata::sections() {
  static const std::vector<std::string> all{"model", "classifier", "autoencoder", "sample", "int8", "config"};
  return all;
}

bool ModelMetadata::is_section(std::string_view key) {
  return std::any_of(sections().begin(), sections().end(), [&](const std::string& name) { return key == key_of(name); });
}

bool ModelMetadata::is_brume() const { return text("format") != nullptr; }

std::string ModelMetadata::kind() const {
  for (const char* section : {"model", "classifier", "autoencoder"})
    if (has(section)) return section;
  return "";
}

void ModelMetadata::check_format(const std::string& path) const {
  const int64_t format = count("format", path);
  if (format <= model_format) return;
  const std::string* writer = text("version");
  throw ConfigError(fmt::format("{}: written by brume {} in model format {}; this is brume {}, which reads up to format {}", path,
                                writer ? *writer : "", format, version(), model_format));
}

std::vector<std::string> ModelMetadata::plugins() const {
  std::vector<std::string> all;
  const std::string* lines = text("plugins");
  for (size_t start = 0; lines && start < lines->size();) {
    const size_t end = std::min(lines->find('\n', start), lines->size());
    all.push_back(lines->substr(start, end - start));
    start = end + 1;
  }
  return all;
}

void ModelMetadata::set_plugins(const std::vector<std::string>& plugins) {
  entries_[key_of("plugins")] = fmt::format("{}", fmt::join(plugins, "\n"));
}

const std::string* ModelMetadata::text(std::string_view section) const {
  const auto at = entries_.find(key_of(section));
  return at == entries_.end() ? nullptr : &at->second;
}

Value ModelMetadata::section(std::string_view name, const std::string& path) const {
  const std::string* yaml = text(name);
  if (!yaml) return {};
  return parse_stored_yaml(*yaml, name == "config" ? path : fmt::format("{} ({})", path, name));
}

Value ModelMetadata::required(std::string_view name, const std::string& path) const {
  entry(name, path);
  return section(name, path);
}

void ModelMetadata::set(std::string_view name, const Value& section) {
  if (!section.is_null()) entries_[key_of(name)] = dump_yaml(section);
}

const std::string& ModelMetadata::entry(std::string_view name, const std::string& path) const {
  if (const std::string* found = text(name)) return *found;
  const std::string missing = fmt::format("its metadata has no '{}'", key_of(name));
  if (is_training() && !is_section(key_of(name))) throw ConfigError(fmt::format("{}: is damaged: {}", path, missing));
  throw ConfigError(fmt::format("{}: not a brume model ({}); `brume inspect` lists what is in it", path, missing));
}

int64_t ModelMetadata::count(std::string_view name, const std::string& path) const {
  const std::string& found = entry(name, path);
  const auto value = parse_number<int64_t>(found);
  if (!value || *value < 0)
    throw ConfigError(fmt::format("{}: is damaged: its metadata '{}' is '{}', expected a count from 0 on", path, key_of(name), found));
  return *value;
}

}  // namespace brume
