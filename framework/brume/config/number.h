#pragma once
// Numbers in a text.
#include <charconv>
#include <optional>
#include <string_view>
#include <type_traits>

namespace brume {

/// Reads the number that `text` begins with, and removes it from `text`. Returns nothing if there is no number, or it is out of T's
/// range. `format` counts for floating-point types.
template <class T>
std::optional<T> take_number(std::string_view& text, [[maybe_unused]] std::chars_format format = std::chars_format::general) {
  T value{};
  std::from_chars_result read{};
  if constexpr (std::is_floating_point_v<T>)
    read = std::from_chars(text.data(), text.data() + text.size(), value, format);
  else
    read = std::from_chars(text.data(), text.data() + text.size(), value);
  if (read.ec != std::errc()) return {};
  text.remove_prefix(size_t(read.ptr - text.data()));
  return value;
}

/// Returns the number that the whole text is. Returns nothing if the text is something else or holds more, or the number is out of T's
/// range. A leading '-' is read, a leading '+' is not.
template <class T>
std::optional<T> parse_number(std::string_view text) {
  const auto value = take_number<T>(text);
  return text.empty() ? value : std::nullopt;
}

/// Returns the same as parse_number, and reads a leading '+' as YAML does.
template <class T>
std::optional<T> parse_signed_number(std::string_view text) {
  if (text.starts_with("+-")) return {};
  return parse_number<T>(text.substr(text.starts_with('+')));
}

}  // namespace brume
