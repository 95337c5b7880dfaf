#include "brume/files/refuse.h"

#include <fmt/format.h>

#include "brume/config/errors.h"

namespace brume {

void refuse(const std::string& path, const std::string& reason) {
  constexpr size_t max_length = 2000;  // a reason may quote names from the file
  throw ConfigError(fmt::format("{}: {}", path, shortened(reason, max_length)));
}

std::string shortened(std::string_view text, size_t max_length) {
  std::string line;
  size_t characters = 0;
  for (const char c : text) {
    const bool continues = (static_cast<unsigned char>(c) & 0xC0) == 0x80;             // a further byte of a UTF-8 character
    if ((!continues && ++characters > max_length) || line.size() >= 4 * max_length) {  // 4: the longest character; text may be no UTF-8
      while (!line.empty() && (static_cast<unsigned char>(line.back()) & 0xC0) == 0x80) line.pop_back();
      if (!line.empty()) line.pop_back();  // room for the ellipsis
      return line + "…";
    }
    line += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
  }
  return line;
}

}  // namespace brume
