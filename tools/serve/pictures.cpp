#include "serve/pictures.h"

#include <fmt/format.h>

#include "brume/config/errors.h"
#include "brume/image/image_header.h"
#include "serve/http.h"

namespace brume::tools {
namespace {

int value_of(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+' || c == '-') return 62;
  if (c == '/' || c == '_') return 63;
  return -1;
}

}  // namespace

std::string base64_of(std::string_view bytes) {
  static constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k) bits = bits << 8 | (k < n ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) text += k <= n ? digits[bits >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

std::string base64_decoded(std::string_view text, const std::string& field) {
  if (text.starts_with("data:")) {
    const size_t comma = text.substr(0, 200).find(',');
    if (comma == text.npos || !text.substr(0, comma).ends_with(";base64"))
      throw HttpError(400, fmt::format("{}: a data: address must be one of base64", field), field);
    text.remove_prefix(comma + 1);
  }
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '\n' || c == '\r') continue;
    const int value = value_of(c);
    if (value < 0) throw HttpError(400, fmt::format("{}: is no base64", field), field);
    bits = bits << 6 | uint32_t(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += char(bits >> count & 255);
  }
  return bytes;
}

void check_picture(std::string_view bytes, const std::string& field, int64_t most_pixels) {
  try {
    const ImageHeader header = read_image_header(bytes, field);
    if (header.height <= 0 || header.width <= 0)
      throw HttpError(400, fmt::format("{}: the picture's header does not tell its size", field), field);
    if (header.height > most_pixels / header.width)
      throw HttpError(413, fmt::format("{}: {} by {} pixels; at most {} are read", field, header.width, header.height, most_pixels), field,
                      "too_large");
  } catch (const ConfigError& e) {
    throw HttpError(400, e.what(), field);
  }
}

}  // namespace brume::tools
