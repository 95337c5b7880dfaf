#pragma once
// Looking things up in a resolved section of a model (a brume::Value: Value is what a pickle holds).
#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include "brume/config/number.h"
#include "brume/config/value.h"
#include "brume/weights/tensors.h"

namespace brume {

/// Returns what stands under a key, as text; "" if nothing does.
inline std::string text_of(const brume::Value& map, std::string_view key) {
  const brume::Value* v = map.find(key);
  return v && v->is_scalar() ? v->scalar : "";
}
inline int64_t integer_of(const brume::Value& map, std::string_view key) { return parse_number<int64_t>(text_of(map, key)).value_or(0); }
inline double number_of(const brume::Value& map, std::string_view key) { return parse_number<double>(text_of(map, key)).value_or(0); }
inline bool truth_of(const brume::Value& map, std::string_view key) { return text_of(map, key) == "true"; }
inline std::vector<std::string> list_of(const brume::Value& map, std::string_view key) {
  std::vector<std::string> all;
  if (const brume::Value* v = map.find(key); v && v->is_list())
    for (const brume::Value& item : v->items) all.push_back(item.scalar);
  return all;
}
/// Returns the part of a model under a key; nothing if it has none. A plugin's name alone is a map of its type.
inline brume::Value part_of(const brume::Value& map, std::string_view key) {
  const brume::Value* v = map.find(key);
  if (v && v->is_map()) return *v;
  brume::Value part = brume::Value::map();
  if (v && v->is_scalar()) part.set("type", *v);
  return part;
}
/// Returns the tensors below a prefix, without it.
inline NamedTensors below(const NamedTensors& tensors, std::string_view prefix) {
  NamedTensors part;
  for (const NamedTensor& t : tensors)
    if (t.name.starts_with(prefix)) part.push_back({t.name.substr(prefix.size()), t.tensor});
  return part;
}

}  // namespace brume
