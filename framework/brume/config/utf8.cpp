#include "brume/config/utf8.h"

#include <fmt/format.h>

namespace brume {
namespace {

struct Character {
  char32_t value = 0;
  size_t bytes = 0;  ///< 0 = what stands here is no character
};

Character character_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(at);
  if (first < 0x80) return {first, 1};
  const size_t bytes = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || at + bytes > text.size()) return {};
  char32_t value = first & (0xFFu >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return {};
    value = value << 6 | (byte(at + i) & 0x3F);
  }
  constexpr char32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < least[bytes] || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return {};
  return {value, bytes};
}

}  // namespace

std::optional<size_t> invalid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Character c = character_at(text, at);
    if (c.bytes == 0) return at;
    at += c.bytes;
  }
  return {};
}

std::vector<char32_t> characters(std::string_view text) {
  std::vector<char32_t> all;
  for (size_t at = 0; at < text.size();) {
    const Character c = character_at(text, at);
    all.push_back(c.bytes ? c.value : 0xFFFD);
    at += c.bytes ? c.bytes : 1;
  }
  return all;
}

std::string_view without_byte_order_mark(std::string_view text) {
  constexpr std::string_view mark = "\xEF\xBB\xBF";
  return text.substr(text.starts_with(mark) ? mark.size() : 0);
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

std::string ascii_text(std::string_view text) {
  constexpr std::string_view latin = "AAAAAAACEEEEIIIIDNOOOOOxOUUUUYTsaaaaaaaceeeeiiiidnooooo/ouuuuyty";  // of U+00C0 to U+00FF
  static_assert(latin.size() == 64);
  std::string ascii;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]), next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : '\0');
    if ((byte & 0xC0) == 0x80) continue;  // the rest of a character that is written already
    if (byte == 0xC3 && (next & 0xC0) == 0x80)
      ascii += latin[next & 0x3F];
    else
      ascii += byte >= 0x20 && byte < 0x7F ? text[i] : byte < 0x80 ? ' ' : '?';
  }
  return ascii;
}

void append_utf8(std::string& to, char32_t c) {
  const auto put = [&](char32_t byte) { to += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (c < 0x80) return put(c);
  if (c >= 0x10000)
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F));
  else if (c >= 0x800)
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F));
  else
    put(0xC0 | c >> 6);
  put(0x80 | (c & 0x3F));
}

std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  size_t shown = 0;
  for (size_t at = 0; at < text.size(); ++shown) {
    if (shown == 120) {
      out += "…";
      break;
    }
    const Character c = character_at(text, at);
    if (c.bytes == 0 || c.value < 0x20 || c.value == 0x7F)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[at]));
    else
      out += text.substr(at, c.bytes);
    at += c.bytes ? c.bytes : 1;
  }
  return out + "\"";
}

}  // namespace brume
