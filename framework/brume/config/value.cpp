#include "brume/config/value.h"
#include "brume/config/number.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/config/yaml.h"

namespace brume {

Value Value::text(std::string scalar, bool quoted) {
  Value v;
  v.type = Type::scalar;
  v.scalar = std::move(scalar);
  v.quoted = quoted;
  return v;
}

Value Value::list(std::vector<Value> items) {
  Value v;
  v.type = Type::list;
  v.items = std::move(items);
  return v;
}

Value Value::list() { return list(std::vector<Value>{}); }

Value Value::map() {
  Value v;
  v.type = Type::map;
  return v;
}

const Value* Value::find(std::string_view key) const {
  for (const Entry& e : entries)
    if (e.key == key) return &e.value;
  return nullptr;
}

Value* Value::find(std::string_view key) { return const_cast<Value*>(std::as_const(*this).find(key)); }

void Value::set(std::string key, Value value) {
  if (Value* old = find(key)) {
    *old = std::move(value);
    return;
  }
  const Place at = value.place;
  entries.push_back({std::move(key), at, std::move(value)});
}

void Value::erase(std::string_view key) {
  std::erase_if(entries, [&](const Entry& e) { return e.key == key; });
}

std::string Value::kind_text() const {
  switch (type) {
    case Type::null: return "nothing";
    case Type::scalar: return fmt::format("'{}'", scalar);
    case Type::list: return "a list";
    case Type::map: return "a map";
  }
  return "";
}

namespace {

/// `sampler: ddim` is short for {type: ddim}.
Value written_out(const Value& name) {
  Value map = Value::map();
  map.place = name.place;
  map.set("type", name);
  return map;
}

}  // namespace

const Value& nearest(const Value& root, std::string_view path) {
  const Value* at = &root;
  while (!path.empty()) {
    const size_t dot = std::min(path.find('.'), path.size());
    const std::string_view key = path.substr(0, dot);
    const auto index = parse_number<size_t>(key);
    const Value* next = at->is_list() ? (index && *index < at->items.size() ? &at->items[*index] : nullptr) : at->find(key);
    if (!next) break;
    at = next;
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return *at;
}

Value merge(Value base, const Value& over) {
  if (base.is_scalar() && over.is_map() && !over.find("type")) base = written_out(base);
  if (!base.is_map() || !over.is_map()) return over;
  const Value *base_type = base.find("type"), *over_type = over.find("type");
  if (over_type && (!base_type || base_type->scalar != over_type->scalar)) return over;
  for (const Value::Entry& e : over.entries) {
    Value* old = base.find(e.key);
    if (!old) {
      base.entries.push_back(e);
      continue;
    }
    *old = merge(std::move(*old), e.value);
  }
  base.place = over.place;
  return base;
}

namespace {

/// The child of `node` named by one segment of a path, made if it is missing.
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

void stamp(Value& value, const Place& place) {
  value.place = place;
  for (Value& v : value.items) stamp(v, place);
  for (Value::Entry& e : value.entries) {
    e.place = place;
    stamp(e.value, place);
  }
}

}  // namespace

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
  stamp(value, place);
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
  const std::string label = fmt::format("{} {}", source, assignment);
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    throw ConfigError(fmt::format("{}: expected KEY=VALUE, like sample.steps=20", label));
  apply_override(root, assignment.substr(0, equals), assignment.substr(equals + 1), label);
}

}  // namespace brume
