#pragma once
// Scalars of a configuration: what they are called, how they are read, and how a resolved configuration writes them.
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "brume/config/number.h"
#include "brume/config/value.h"

namespace brume::detail {

inline bool parse(const Value& v, bool& out) {
  if (v.quoted || (v.scalar != "true" && v.scalar != "false")) return false;
  out = v.scalar == "true";
  return true;
}

template <class T>
inline bool parse_into(const Value& v, T& out) {
  const auto number = v.quoted ? std::nullopt : parse_signed_number<T>(v.scalar);
  if (number) out = *number;
  return number.has_value();
}

inline bool parse(const Value& v, int64_t& out) { return parse_into(v, out); }

inline bool parse(const Value& v, double& out) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (v.scalar == ".inf" || v.scalar == "-.inf") return out = v.scalar[0] == '-' ? -infinity : infinity, !v.quoted;
  return parse_into(v, out) && !std::isnan(out);
}

inline bool parse(const Value& v, std::string& out) {
  out = v.scalar;
  return true;
}

template <class T>
inline constexpr std::string_view type_name = "";
template <>
inline constexpr std::string_view type_name<bool> = "true or false";
template <>
inline constexpr std::string_view type_name<int64_t> = "an integer";
template <>
inline constexpr std::string_view type_name<double> = "a number";
template <>
inline constexpr std::string_view type_name<std::string> = "a string";
template <class T>
inline constexpr std::string_view list_name = "";
template <>
inline constexpr std::string_view list_name<int64_t> = "a list of integers";
template <>
inline constexpr std::string_view list_name<double> = "a list of numbers";
template <>
inline constexpr std::string_view list_name<std::string> = "a list of strings";

inline Value resolved(bool v) { return Value::text(v ? "true" : "false"); }
inline Value resolved(int64_t v) { return Value::text(fmt::format("{}", v)); }
inline Value resolved(double v) { return Value::text(std::isinf(v) ? (v > 0 ? ".inf" : "-.inf") : fmt::format("{}", v)); }
inline Value resolved(const std::string& v) { return Value::text(v, true); }

}  // namespace brume::detail
