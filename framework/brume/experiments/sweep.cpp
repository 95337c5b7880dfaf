#include "brume/experiments/sweep.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "brume/config/inline_yaml.h"
#include "brume/config/yaml.h"
#include "brume/experiments/sweep_section.h"
#include "brume/train/source.h"

namespace brume {
namespace {

/// Returns the shortest end of each key, at a dot, that is the end of no other.
std::map<std::string, std::string> short_names(const std::vector<std::string>& keys) {
  std::map<std::string, std::string> names;
  for (const std::string& key : keys) {
    size_t at = key.size();
    std::string name = key;
    while (at != key.npos && at > 0) {
      at = key.rfind('.', at - 1);
      name = at == key.npos ? key : key.substr(at + 1);
      const auto shared =
          std::count_if(keys.begin(), keys.end(), [&](const std::string& k) { return k == name || k.ends_with("." + name); });
      if (shared == 1) break;
    }
    names[key] = name;
  }
  return names;
}

/// Returns a value as a part of a file's name.
std::string name_of(const Value& value) {
  constexpr size_t longest = 60;
  std::string name;
  for (const char c : inline_yaml(value)) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '+';
    if (plain || (!name.empty() && name.back() != '_')) name += plain ? c : '_';
  }
  while (!name.empty() && name.back() == '_') name.pop_back();
  return name.substr(0, longest);
}

/// The values of one run, by key.
using Values = std::vector<std::pair<std::string, Value>>;

std::vector<Values> combinations(const std::vector<SweepAxis>& axes) {
  std::vector<Values> all(1);
  for (const SweepAxis& axis : axes) {
    std::vector<Values> longer;
    for (const Values& values : all)
      for (const auto& row : axis.rows) {
        longer.push_back(values);
        for (size_t i = 0; i < axis.keys.size(); ++i) longer.back().emplace_back(axis.keys[i], row[i]);
      }
    all = std::move(longer);
  }
  return all;
}

/// Adds mistakes that are not yet there; the same one of many runs counts once.
class Mistakes {
 public:
  void add(const ConfigError& error, const std::string& run) {
    for (const Problem& p : error.problems())
      if (seen_.insert({p.path, p.message}).second)
        all_.push_back({p.place, p.path, p.place.text().empty() ? fmt::format("{} (run {})", p.message, run) : p.message});
  }
  void add(const std::string& message) { all_.push_back({{}, "sweep", message}); }
  void throw_if_any() {
    if (!all_.empty()) throw ConfigError(std::move(all_));
  }

 private:
  std::set<std::pair<std::string, std::string>> seen_;
  std::vector<Problem> all_;
};

}  // namespace

Sweep expand_sweep(const Value& root) {
  SweepSection section = read_sweep_section(root);
  std::vector<std::string> keys;
  for (const SweepAxis& axis : section.axes) keys.insert(keys.end(), axis.keys.begin(), axis.keys.end());
  const std::map<std::string, std::string> names = short_names(keys);
  Value base = root;
  base.erase("sweep");
  Sweep sweep;
  sweep.commands = std::move(section.commands);
  Mistakes mistakes;
  std::map<std::string, std::vector<std::string>> by_name;
  for (const Values& values : combinations(section.axes)) {
    SweepRun run{"", {}, base};
    for (const auto& [key, value] : values) {
      run.name += (run.name.empty() ? "" : ",") + names.at(key) + "=" + name_of(value);
      run.settings.push_back(key + "=" + inline_yaml(value));
    }
    try {
      for (const std::string& setting : run.settings) apply_override(run.root, setting, "sweep");
    } catch (const ConfigError& e) {
      mistakes.add(e, run.name);
    }
    const auto [same, fresh] = by_name.emplace(run.name, run.settings);
    if (!fresh)
      mistakes.add(
          fmt::format("two runs have the name '{}': {} and {}", run.name, fmt::join(same->second, " "), fmt::join(run.settings, " ")));
    sweep.runs.push_back(std::move(run));
  }
  mistakes.throw_if_any();
  return sweep;
}

std::vector<Value> check_runs(Registry& registry, const Sweep& sweep, const std::filesystem::path& folder) {
  Mistakes mistakes;
  std::vector<Value> all;
  std::map<std::string, std::string> by_configuration;
  for (const SweepRun& run : sweep.runs) {
    try {
      Value resolved;
      const Config config = read_training(registry, run.root, folder, &resolved);
      if (!config.train) throw ConfigError("the configuration has no section 'train'");
      const auto [same, fresh] = by_configuration.emplace(dump_yaml(resolved), run.name);
      if (!fresh) mistakes.add(fmt::format("the runs '{}' and '{}' have the same configuration", same->second, run.name));
      all.push_back(std::move(resolved));
    } catch (const ConfigError& e) {
      mistakes.add(e, run.name);
    }
  }
  mistakes.throw_if_any();
  return all;
}

}  // namespace brume
