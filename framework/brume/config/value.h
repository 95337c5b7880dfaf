#pragma once
// A configuration as a tree of plain values, each with the place it was written at. YAML is only one way in and out.
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/errors.h"

namespace brume {

/// Null, a scalar (as text), a list or a map in the order of the file.
class Value {
 public:
  enum class Type { null, scalar, list, map };
  struct Entry;

  Type type = Type::null;
  std::string scalar;
  bool quoted = false;  ///< written in quotes: a string whatever it looks like
  std::vector<Value> items;
  std::vector<Entry> entries;
  Place place;

  static Value text(std::string scalar, bool quoted = false);
  static Value list();
  static Value list(std::vector<Value> items);
  static Value map();

  bool is_null() const { return type == Type::null; }
  bool is_scalar() const { return type == Type::scalar; }
  bool is_list() const { return type == Type::list; }
  bool is_map() const { return type == Type::map; }

  /// Returns the value of `key` in a map, or null.
  const Value* find(std::string_view key) const;
  Value* find(std::string_view key);
  void set(std::string key, Value value);  ///< replaces or appends
  void erase(std::string_view key);
  std::string kind_text() const;  ///< "'abc'", "a list", "a map" or "nothing", for messages
};

struct Value::Entry {
  std::string key;
  Place place;
  Value value;
};

/// Returns the value at a path like "sample.guidance.1.scale", or the nearest above it that is there.
const Value& nearest(const Value& root, std::string_view path);

/// Returns `over` laid on `base`: maps merge key by key, unless their `type` differs; anything else replaces.
Value merge(Value base, const Value& over);

/// Applies one override "a.b.2.c=value" (the value is YAML) as if it stood in the file. Errors name it "SOURCE a.b.2.c=value", or without
/// the source if that is empty. A plugin given by its name alone ("sampler: ddim") becomes a map if one of its keys is set.
void apply_override(Value& root, std::string_view assignment, const std::string& source = "");
/// Sets the value at a path given apart ("--steps 20" is sample.steps = 20).
void apply_override(Value& root, std::string_view path, std::string_view value, const std::string& label);

}  // namespace brume
