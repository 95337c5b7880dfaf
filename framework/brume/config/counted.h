#pragma once
// Numbers of things in a text.
#include <concepts>
#include <string>
#include <string_view>

namespace brume {

/// Returns the number with the noun in singular or plural: "1 class", "3 classes", "0 entries". `noun`: in singular.
std::string counted(std::string_view number, std::string_view noun);

template <std::integral Number>
std::string counted(Number n, std::string_view noun) {
  return counted(std::string_view(std::to_string(n)), noun);
}

}  // namespace brume
