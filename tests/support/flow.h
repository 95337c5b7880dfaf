#pragma once
#include <string>

#include "brume/config/value.h"

namespace brume::test {

/// Returns a tree in one line of YAML: {type: unet, multipliers: [1, 2]}.
inline std::string flow(const Value& v) {
  std::string text;
  for (const Value& item : v.items) text += (text.empty() ? "" : ", ") + flow(item);
  for (const Value::Entry& e : v.entries) text += (text.empty() ? "" : ", ") + e.key + ": " + flow(e.value);
  return v.is_list() ? "[" + text + "]" : v.is_map() ? "{" + text + "}" : v.scalar;
}

}  // namespace brume::test
