#pragma once
// Tar archives built byte by byte.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace brume::test {

/// A ustar member.
inline std::string tar_member(const std::string& name, const std::string& content, char type = '0') {
  std::string header(512, '\0');
  const auto put = [&](size_t at, const std::string& text) { header.replace(at, text.size(), text); };
  const auto octal = [](size_t value, int digits) {
    std::string text(size_t(digits), '0');
    for (size_t i = text.size(); value > 0; value /= 8) text[--i] = char('0' + value % 8);
    return text;
  };
  put(0, name), put(100, "0000644"), put(124, octal(content.size(), 11)), put(136, octal(0, 11)), put(148, "        ");
  header[156] = type;
  put(257, "ustar"), put(263, "00");
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<uint8_t>(c);
  put(148, octal(sum, 6)), header[154] = '\0', header[155] = ' ';
  return header + content + std::string((512 - content.size() % 512) % 512, '\0');
}

/// An archive of names and contents.
inline std::string tar_of(const std::vector<std::pair<std::string, std::string>>& members) {
  std::string archive;
  for (const auto& [name, content] : members) archive += tar_member(name, content);
  return archive + std::string(1024, '\0');
}

}  // namespace brume::test
