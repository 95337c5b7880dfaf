#include "brume/config/counted.h"

#include <array>

namespace brume {
namespace {

std::string plural(std::string_view noun) {
  std::string text(noun);
  if (noun.ends_with('y')) return text.replace(text.size() - 1, 1, "ies");
  for (const std::string_view hissing : std::array<std::string_view, 3>{"s", "x", "ch"})
    if (noun.ends_with(hissing)) return text + "es";
  return text + "s";
}

}  // namespace

std::string counted(std::string_view number, std::string_view noun) {
  return std::string(number) + ' ' + (number == "1" ? std::string(noun) : plural(noun));
}

}  // namespace brume
