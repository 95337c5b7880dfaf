#pragma once
// A text that is a number from its first letter to its last.
#include <charconv>
#include <optional>
#include <string_view>

namespace brume {

/// Nothing where the text is something else, has anything around the number, or is out of T's range.
template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

}  // namespace brume
