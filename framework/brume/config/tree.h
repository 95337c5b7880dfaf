#pragma once
// Trees of values, written in C++: map_of({{"type", "unet"}, {"channels", 320}, {"multipliers", widths}}).
#include <fmt/format.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "brume/config/value.h"

namespace brume {

/// Returns a number, a truth, a text or a list of them as a configuration holds it; a Value as it is.
template <class T>
Value value_of(const T& x) {
  if constexpr (std::is_same_v<T, Value>) {
    return x;
  } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    return Value::text(std::string(std::string_view(x)));
  } else if constexpr (std::is_arithmetic_v<T>) {
    return Value::text(fmt::format("{}", x));
  } else {
    std::vector<Value> items;
    items.reserve(std::size(x));
    for (const auto& item : x) items.push_back(value_of(item));
    return Value::list(std::move(items));
  }
}

/// A key and its value.
struct Pair {
  std::string key;
  Value value;

  template <class T>
  Pair(std::string name, const T& x) : key(std::move(name)), value(value_of(x)) {}
};

/// Returns a map with these keys, in this order.
inline Value map_of(std::initializer_list<Pair> pairs) {
  Value map = Value::map();
  for (const Pair& p : pairs) map.set(p.key, p.value);
  return map;
}

/// Sets the place of a value and of all that it holds, which errors name.
void set_place(Value& value, const Place& place);

/// Returns the map of a plugin, with these options.
inline Value plugin_of(std::string_view type, std::initializer_list<Pair> options) {
  Value map = map_of({{"type", type}});
  for (const Pair& p : options) map.set(p.key, p.value);
  return map;
}

}  // namespace brume
