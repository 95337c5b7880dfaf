// Sets values of a configuration by their paths.
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/number.h"
#include "brume/config/shorthand.h"
#include "brume/config/tree.h"
#include "brume/config/value.h"
#include "brume/config/yaml.h"

namespace brume {
namespace {

/// Returns the child of `node` named by one segment of a path, made if it is missing.
Value& child(Value& node, const std::string& segment, const std::string& walked, const Place& place) {
  if (node.is_scalar() && segment == "0") {  // `guidance: cfg` is short for [cfg]
    const Place at = node.place;
    node = Value::list({node});
    node.place = at;
  }
  const auto fail = [&](const std::string& what) -> void { throw ConfigError(std::vector<Problem>{{place, walked, what}}); };
  if (node.is_list()) {
    const auto index = parse_number<size_t>(segment);
    if (!index) fail(fmt::format("'{}' is not an index; this is a list of {}", segment, node.items.size()));
    if (*index >= node.items.size()) fail(fmt::format("no entry {}; the list has {} (the first is 0)", *index, node.items.size()));
    return node.items[*index];
  }
  if (node.is_scalar()) node = written_out(node);
  if (node.is_null()) {
    node.type = Value::Type::map;
    node.place = place;
  }
  if (Value* found = node.find(segment)) return *found;
  Value fresh;
  fresh.place = place;
  node.entries.push_back({segment, place, fresh});
  return node.entries.back().value;
}

}  // namespace

void set_place(Value& value, const Place& place) {
  value.place = place;
  for (Value& v : value.items) set_place(v, place);
  for (Value::Entry& e : value.entries) {
    e.place = place;
    set_place(e.value, place);
  }
}

void apply_override(Value& root, std::string_view path, std::string_view text, const std::string& label) {
  const Place place{std::make_shared<const std::string>(label), 0, 0};
  Value value;
  try {
    if (text.find_first_not_of(" \t\n") != text.npos) value = parse_yaml(text, label);
  } catch (const ConfigError& e) {
    std::string why = e.problems().front().message;
    if (why.starts_with("not YAML: ")) why = "the value is " + why;
    throw ConfigError(std::vector<Problem>{{place, std::string(path), why}});
  }
  set_place(value, place);
  Value* node = &root;
  std::string walked;
  for (size_t start = 0; start <= path.size();) {
    const size_t dot = std::min(path.find('.', start), path.size());
    const std::string segment(path.substr(start, dot - start));
    if (segment.empty()) throw ConfigError(std::vector<Problem>{{place, "", fmt::format("'{}' is not a path like sample.steps", path)}});
    node = &child(*node, segment, walked.empty() ? "config" : walked, place);
    walked += (walked.empty() ? "" : ".") + segment;
    start = dot + 1;
  }
  *node = std::move(value);
}

void apply_override(Value& root, std::string_view assignment, const std::string& source) {
  const std::string label = source.empty() ? std::string(assignment) : fmt::format("{} {}", source, assignment);
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    throw ConfigError(fmt::format("{}: expected KEY=VALUE, like sample.steps=20", label));
  apply_override(root, assignment.substr(0, equals), assignment.substr(equals + 1), label);
}

}  // namespace brume
