#pragma once
// Image files built byte by byte, so that tests know each of their pixels whatever a library makes of them.
#include <zlib.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "brume/image/image.h"

namespace brume::test::files {

inline std::string number(uint64_t value, int width, bool big) {
  std::string bytes;
  for (int i = 0; i < width; ++i) {
    const int place = big ? width - 1 - i : i;  // of 16 bytes, say
    bytes += place < 8 ? static_cast<char>(value >> 8 * place & 0xff) : '\0';
  }
  return bytes;
}

/// A grid of samples of 8 or 16 bits, `channels` each: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
struct Samples {
  int64_t height, width, channels;
  int bits = 8;
  std::vector<uint16_t> values;
  std::string row(int64_t y, bool big) const {
    std::string bytes;
    const int64_t n = width * channels;
    for (int64_t i = 0; i < n; ++i) bytes += number(values[size_t(y * n + i)], bits / 8, big);
    return bytes;
  }
};

/// The pixels of an image; 16 bits are 257 times as much. Alpha is 255 except where `alpha` says otherwise.
inline Samples samples_of(const Image& image, int bits, bool with_alpha, const std::function<int(int64_t, int64_t)>& alpha = {}) {
  Samples s{image.height, image.width, image.channels + with_alpha, bits, {}};
  for (int64_t y = 0; y < image.height; ++y)
    for (int64_t x = 0; x < image.width; ++x) {
      for (int64_t c = 0; c < image.channels; ++c) s.values.push_back(image.row(y)[x * image.channels + c]);
      if (with_alpha) s.values.push_back(uint16_t(alpha ? alpha(y, x) : 255));
    }
  if (bits == 16)
    for (uint16_t& v : s.values) v = uint16_t(v * 257);
  return s;
}

/// Exif data that tell an orientation and nothing else.
inline std::string exif(int orientation, bool big) {
  return (big ? std::string("MM\0*", 4) : std::string("II*\0", 4)) + number(8, 4, big) + number(1, 2, big) + number(274, 2, big) +
         number(3, 2, big) + number(1, 4, big) + number(uint64_t(orientation), 2, big) + number(0, 2, big) + number(0, 4, big);
}

inline std::string png_chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  const auto crc = crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
  return number(data.size(), 4, true) + body + number(crc, 4, true);
}

/// `before` and `after`: chunks around the pixels.
inline std::string png_of(const Samples& s, const std::string& before = "", const std::string& after = "") {
  const char colours[] = {0, 4, 2, 6};
  std::string rows;
  for (int64_t y = 0; y < s.height; ++y) rows += '\0' + s.row(y, true);
  uLongf size = compressBound(rows.size());
  std::string packed(size, '\0');
  compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(rows.data()), rows.size());
  packed.resize(size);
  const std::string header = number(uint64_t(s.width), 4, true) + number(uint64_t(s.height), 4, true) + char(s.bits) +
                             colours[s.channels - 1] + std::string(3, '\0');
  return "\x89PNG\r\n\x1a\n" + png_chunk("IHDR", header) + before + png_chunk("IDAT", packed) + after + png_chunk("IEND", "");
}

/// One uncompressed strip. `extra`: what the second or fourth channel is, 1 = alpha that colours are multiplied by, 2 = alpha that they are
/// not. `changed`: other values of tags; a tag that is not usual is added if its number is larger than those.
inline std::string tiff_of(const Samples& s, int orientation, bool big, int extra = 2, const std::map<uint64_t, uint64_t>& changed = {}) {
  struct Entry {
    uint64_t tag, type;
    std::vector<uint64_t> values;
  };
  std::string pixels;
  for (int64_t y = 0; y < s.height; ++y) pixels += s.row(y, big);
  const auto n = uint64_t(s.channels);
  std::vector<Entry> entries = {{256, 3, {uint64_t(s.width)}},
                                {257, 3, {uint64_t(s.height)}},
                                {258, 3, std::vector<uint64_t>(n, uint64_t(s.bits))},
                                {259, 3, {1}},
                                {262, 3, {n >= 3 ? 2u : 1u}},
                                {273, 4, {0}},
                                {274, 3, {uint64_t(orientation)}},
                                {277, 3, {n}},
                                {278, 3, {uint64_t(s.height)}},
                                {279, 4, {pixels.size()}}};
  for (const auto& [tag, value] : changed)
    if (tag > 279 && tag < 338) entries.push_back({tag, 3, {value}});
  if (n == 2 || n == 4) entries.push_back({338, 3, {uint64_t(extra)}});
  for (const auto& [tag, value] : changed) {
    if (tag > 338) entries.push_back({tag, 3, {value}});
    for (Entry& e : entries)
      if (e.tag == tag) e.values = {value};
  }
  const uint64_t far = 8 + 2 + 12 * entries.size() + 4;
  const std::string bits = number(uint64_t(s.bits), 2, big);
  std::string bits_of_all;
  for (uint64_t i = 0; i < n; ++i) bits_of_all += bits;
  std::string directory = number(entries.size(), 2, big);
  for (const Entry& e : entries) {
    directory += number(e.tag, 2, big) + number(e.type, 2, big) + number(e.values.size(), 4, big);
    std::string value;
    for (const uint64_t v : e.values) value += number(e.tag == 273 ? far + bits_of_all.size() : v, e.type == 3 ? 2 : 4, big);
    directory += value.size() > 4 ? number(far, 4, big) : value + std::string(4 - value.size(), '\0');
  }
  return (big ? std::string("MM\0*", 4) : std::string("II*\0", 4)) + number(8, 4, big) + directory + number(0, 4, big) + bits_of_all +
         pixels;
}

/// The bits of a lossless WebP (RFC 9649, section 3) of RGB or RGBA samples, each channel of which has two levels at most.
inline std::string vp8l_of(const Samples& s) {
  std::string bytes;
  int filled = 8;
  const auto put = [&](uint64_t value, int bits) {
    for (int i = 0; i < bits; ++i, value >>= 1) {
      if (filled == 8) bytes += '\0', filled = 0;
      bytes.back() = static_cast<char>(static_cast<uint8_t>(bytes.back()) | (value & 1) << filled++);
    }
  };
  const auto value = [&](int64_t pixel, int64_t channel) {
    return channel < s.channels ? s.values[size_t(pixel * s.channels + channel)] : uint16_t{255};
  };
  put(0x2f, 8), put(uint64_t(s.width - 1), 14), put(uint64_t(s.height - 1), 14), put(s.channels == 4, 1), put(0, 3);
  put(0, 3);  // no transform, no colour cache, one set of codes
  constexpr int order[] = {1, 0, 2, 3};
  uint16_t low[4], high[4];
  for (const int c : order) {
    low[c] = high[c] = value(0, c);
    for (int64_t i = 0; i < s.height * s.width; ++i) low[c] = std::min(low[c], value(i, c)), high[c] = std::max(high[c], value(i, c));
    put(1, 1), put(low[c] != high[c], 1), put(1, 1), put(low[c], 8);
    if (low[c] != high[c]) put(high[c], 8);
  }
  put(1, 1), put(0, 3);  // distances: one code, never used
  for (int64_t i = 0; i < s.height * s.width; ++i)
    for (const int c : order)
      if (low[c] != high[c]) put(value(i, c) == high[c], 1);
  return bytes;
}

inline std::string webp_chunk(const std::string& type, const std::string& data) {
  return type + number(data.size(), 4, false) + data + std::string(data.size() % 2, '\0');
}
inline std::string webp_file(const std::string& chunks) { return "RIFF" + number(4 + chunks.size(), 4, false) + "WEBP" + chunks; }
inline std::string webp_canvas(int64_t height, int64_t width, int flags) {
  return webp_chunk("VP8X",
                    number(uint64_t(flags), 4, false) + number(uint64_t(width - 1), 3, false) + number(uint64_t(height - 1), 3, false));
}
inline std::string webp_of(const Samples& s, int orientation) {
  constexpr int has_exif = 0x08, has_alpha = 0x10;
  return webp_file(webp_canvas(s.height, s.width, has_exif | (s.channels == 4 ? has_alpha : 0)) + webp_chunk("VP8L", vp8l_of(s)) +
                   webp_chunk("EXIF", exif(orientation, false)));
}

/// What is stored so that a program which follows the orientation shows `shown` (TIFF 6.0, tag 274: the sides of the shown image that the
/// first row and the first column of the stored one are).
inline Image stored_for(const Image& shown, int orientation) {
  struct Sides {
    const char *row, *column;
  };
  static const Sides sides[] = {{"top", "left"}, {"top", "right"}, {"bottom", "right"}, {"bottom", "left"},
                                {"left", "top"}, {"right", "top"}, {"right", "bottom"}, {"left", "bottom"}};
  const std::string row = sides[orientation - 1].row, column = sides[orientation - 1].column;
  const bool on_side = row == "left" || row == "right";
  Image stored(on_side ? shown.width : shown.height, on_side ? shown.height : shown.width, shown.channels);
  for (int64_t r = 0; r < stored.height; ++r)
    for (int64_t c = 0; c < stored.width; ++c) {
      const int64_t x = row == "left" ? r : row == "right" ? shown.width - 1 - r : column == "left" ? c : shown.width - 1 - c;
      const int64_t y = row == "top" ? r : row == "bottom" ? shown.height - 1 - r : column == "top" ? c : shown.height - 1 - c;
      std::copy_n(shown.row(y) + x * shown.channels, shown.channels, stored.row(r) + c * shown.channels);
    }
  return stored;
}

/// Six pixels of two levels per channel, all different.
inline Image two_by_three() {
  Image image(2, 3, 3);
  for (int i = 0; i < 6; ++i)
    for (int c = 0; c < 3; ++c) image.pixels[size_t(3 * i + c)] = uint8_t(10 + 10 * c + ((i + 1) >> c & 1) * 180);
  return image;
}

struct ImageFile {
  std::string name, bytes;
};
/// Every format that can tell an orientation, with and without alpha, of 8 and 16 bits, all of which show two_by_three(). JPEG, which
/// loses something, is not among them.
inline std::vector<ImageFile> oriented_files(int orientation) {
  const Image stored = stored_for(two_by_three(), orientation);
  std::vector<ImageFile> files;
  for (const bool alpha : {false, true}) {
    for (const int bits : {8, 16}) {
      const Samples s = samples_of(stored, bits, alpha);
      const std::string name = std::to_string(orientation) + (alpha ? "_alpha_" : "_") + std::to_string(bits);
      files.push_back({name + "_before.png", png_of(s, png_chunk("eXIf", exif(orientation, true)))});
      files.push_back({name + "_after.png", png_of(s, "", png_chunk("eXIf", exif(orientation, false)))});
      files.push_back({name + "_big.tif", tiff_of(s, orientation, true)});
      files.push_back({name + "_little.tiff", tiff_of(s, orientation, false)});
    }
    files.push_back({std::to_string(orientation) + (alpha ? "_alpha" : "") + ".webp", webp_of(samples_of(stored, 8, alpha), orientation)});
  }
  return files;
}

}  // namespace brume::test::files
