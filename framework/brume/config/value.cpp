#include "brume/config/value.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/config/number.h"
#include "brume/config/shorthand.h"

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

Value written_out(const Value& name) {
  Value map = Value::map();
  map.place = name.place;
  map.set("type", name);
  return map;
}

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

}  // namespace brume
