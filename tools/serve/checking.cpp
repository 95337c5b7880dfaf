#include "serve/checking.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "brume/config/yaml.h"
#include "brume/train/source.h"

namespace brume::tools {
namespace {

bool leaves_the_folder(const std::string& text) {
  const std::filesystem::path path(text);
  return path.is_absolute() || text.starts_with('~') || std::find(path.begin(), path.end(), "..") != path.end();
}

/// Adds what a text from the network may not ask for, at any depth.
void refuse_outside(const Value& value, const std::string& path, std::vector<Problem>& problems) {
  if (value.is_scalar() && leaves_the_folder(value.scalar))
    problems.push_back(
        {value.place, path, "'" + value.scalar + "' leads out of the folder of the server; relative paths without '..' are read"});
  for (const Value& item : value.items) refuse_outside(item, path, problems);
  for (const auto& [key, place, item] : value.entries) {
    const std::string below = path.empty() ? key : path + "." + key;
    if (key == "include") problems.push_back({place, path, "'include' is read from files alone; paste the part here"});
    refuse_outside(item, below, problems);
  }
}

/// Removes sections that a text from the network cannot have.
void refuse_sections(Value& root, std::vector<Problem>& problems) {
  const std::pair<const char*, const char*> refused[] = {
      {"plugins", "libraries are loaded by the server alone; start it with --plugin FILE"},
      {"sweep", "the server trains one run; `brume sweep` trains the runs of a sweep"}};
  for (const auto& [section, why] : refused)
    for (const auto& [key, place, value] : root.entries)
      if (key == section) problems.push_back({place, section, why});
  for (const auto& [section, why] : refused) root.erase(section);
}

nlohmann::ordered_json list_of(const std::vector<Problem>& problems) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Problem& p : problems)
    list.push_back({{"line", p.place.line}, {"column", p.place.column}, {"path", p.path}, {"message", p.message}});
  return list;
}

}  // namespace

CheckedText check_training(const Registry& registry, const std::string& yaml) {
  CheckedText checked;
  Registry own = registry;  // with warnings of its own; no plugin is added to it
  own.on_warning([&](const Problem& warning) { checked.warnings.push_back(warning); });
  try {
    Value root = parse_yaml(yaml, "configuration"), resolved;
    refuse_sections(root, checked.problems);
    refuse_outside(root, "", checked.problems);
    if (!checked.problems.empty()) return checked;
    const Config config = read_training(own, root, ".", &resolved);
    if (!config.train) checked.problems.push_back({{}, "", "the configuration has no section 'train'"});
    if (checked.problems.empty()) checked.resolved = dump_yaml(resolved);
  } catch (const ConfigError& e) {
    checked.problems.insert(checked.problems.end(), e.problems().begin(), e.problems().end());
  }
  return checked;
}

std::string check_json(const Registry& registry, const std::string& yaml) {
  const CheckedText checked = check_training(registry, yaml);
  return nlohmann::ordered_json{
      {"problems", list_of(checked.problems)}, {"warnings", list_of(checked.warnings)}, {"resolved", checked.resolved}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace brume::tools
