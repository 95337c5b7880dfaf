#include "commands/evaluation_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/files/atomic_file.h"
#include "brume/files/json.h"
#include "brume/files/mapped_file.h"

namespace brume::tools {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const EvaluatedSet& set) {
  Json json{{"name", set.name}, {"images", set.images}, {"hash", set.hash}, {"notes", set.notes}};
  if (set.steps > 0) json["steps"] = set.steps;
  if (set.calls > 0) json["calls"] = set.calls;
  if (!set.sampler.empty()) json["sampler"] = set.sampler;
  if (set.cfg) json["cfg"] = *set.cfg;
  for (const auto& f : set.figures) json["figures"][f.name] = f.value;
  return json;
}

EvaluatedSet set_of(const Json& json) {
  EvaluatedSet set{.name = json.at("name"), .hash = json.at("hash"), .images = json.at("images"), .steps = json.value("steps", int64_t{0})};
  set.sampler = json.value("sampler", "");
  set.calls = json.value("calls", int64_t{0});
  if (json.contains("cfg")) set.cfg = json.at("cfg").get<double>();
  set.notes = json.at("notes").get<std::vector<std::string>>();
  for (const auto& [name, value] : json.at("figures").items())
    set.figures.push_back({name, value.is_null() ? std::nan("") : value.get<double>()});
  return set;
}

std::string text_of(const Json* value) { return value ? value->is_string() ? value->get<std::string>() : value->dump() : "nothing"; }

/// Throws if the values at a path of two files' conditions differ. `here`: what the second is called.
void expect_equal(const std::string& path, const Json& a, const std::string& here, const Json& b, const std::string& key,
                  const std::string& advice) {
  const Json::json_pointer at("/" + key);
  const Json *x = a.contains(at) ? &a.at(at) : nullptr, *y = b.contains(at) ? &b.at(at) : nullptr;
  if ((!x && !y) || (x && y && *x == *y)) return;
  std::string name = key;
  std::replace(name.begin(), name.end(), '/', '.');
  throw ConfigError(fmt::format("{} was judged with {} '{}', and {} with '{}'{}", path, name, text_of(x), here, text_of(y), advice));
}

}  // namespace

void write_evaluation(const std::string& path, const EvaluationFile& file) {
  Json json = file.conditions;
  json["sets"] = Json::array();
  for (const EvaluatedSet& set : file.sets) json["sets"].push_back(json_of(set));
  write_file(path, json.dump(1) + "\n");
}

std::optional<EvaluationFile> find_evaluation(const std::string& path) {
  if (!std::filesystem::is_regular_file(path)) return {};
  const auto mapped = MappedFile::open(path);
  const std::string_view text = mapped->bytes();
  if (json_or_discarded(text).is_discarded()) return {};
  EvaluationFile file{Json::parse(text), {}};
  if (!file.conditions.is_object() || !file.conditions.contains("features") || !file.conditions.contains("sets")) return {};
  try {
    for (const Json& set : file.conditions.at("sets")) file.sets.push_back(set_of(set));
  } catch (const Json::exception&) {
    return {};
  }
  file.conditions.erase("sets");
  return file;
}

std::vector<EvaluatedSet> finished_sets(const std::string& path, const Json& conditions) {
  const auto file = find_evaluation(path);
  if (!file) return {};
  for (const Json* both : {&file->conditions, &conditions})
    for (const auto& [key, value] : both->items())
      if (!value.is_object()) {
        expect_equal(path, file->conditions, "this evaluation", conditions, key, "; name another file with --json");
      } else {
        for (const auto& [inner, unused] : value.items())
          if (inner != "name")  // the same file may be named by another path
            expect_equal(path, file->conditions, "this evaluation", conditions, key + "/" + inner, "; name another file with --json");
      }
  return file->sets;
}

std::vector<EvaluatedSet> comparable_sets(const std::vector<std::string>& paths) {
  std::vector<EvaluatedSet> all;
  std::optional<EvaluationFile> first;
  for (const std::string& path : paths) {
    const auto file = find_evaluation(path);
    if (!file) throw ConfigError(fmt::format("--compare: {} is no file of `brume evaluate --metric … --json`", path));
    if (file->sets.empty()) throw ConfigError(fmt::format("--compare: {} has no judged set yet", path));
    if (!first) first = file;
    for (const char* key : {"features/hash", "features/preprocessing", "features/precision", "features/width", "real/hash", "metrics"})
      expect_equal(paths.front(), first->conditions, path, file->conditions, key, ": these figures cannot be compared");
    for (EvaluatedSet set : file->sets) {
      if (set.images != first->sets.front().images)
        throw ConfigError(fmt::format("{} was judged with {}, and {} ({}) with {}: these figures cannot be compared", paths.front(),
                                      counted(first->sets.front().images, "image"), path, set.name, set.images));
      set.name = path + ": " + set.name;
      all.push_back(std::move(set));
    }
  }
  return all;
}

void print_table(const std::vector<EvaluatedSet>& sets) {
  size_t width = 8;
  for (const EvaluatedSet& set : sets) width = std::max(width, set.name.size());
  fmt::print("{:<{}} {:>8}", "", width, "images");
  const auto column = [](const std::string& name) { return std::max<size_t>(10, name.size()); };
  for (const auto& f : sets.front().figures) fmt::print(" {:>{}}", f.name, column(f.name));
  fmt::print("\n");
  for (const EvaluatedSet& set : sets) {
    fmt::print("{:<{}} {:>8}", set.name, width, set.images);
    for (const auto& f : set.figures) fmt::print(" {:>{}}", fmt::format("{:.6g}", f.value), column(f.name));
    fmt::print("\n");
  }
}

}  // namespace brume::tools
