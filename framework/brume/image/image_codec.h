#pragma once
// The door to OpenCV, which reads and writes compressed images: everything outside image_codec.cpp is RGB.
#include <optional>
#include <string>
#include <string_view>

#include "brume/image/image.h"

namespace brume {

/// How the pixels of a file are stored, and what becomes of them.
struct Decoding {
  int64_t channels = 3;                        ///< of the result: 1 (grey) or 3 (RGB)
  uint8_t background = 255;                    ///< grey level that transparent pixels are composited on
  bool alpha = false;                          ///< whether the format may hold transparency
  std::optional<uint16_t> transparent_grey{};  ///< the level of a grey image that is transparent
  bool premultiplied = false;                  ///< whether colours are multiplied by alpha already
};

/// Decodes a whole file as it is stored, whatever orientation it tells.
Image decode_image(std::string_view bytes, const Decoding& how, const std::string& path);
/// Returns the numbers of a file of one channel, row by row, as they are stored. Throws ConfigError if it has not the size and the bits (8
/// or 16) that are wanted.
std::vector<uint16_t> decode_samples(std::string_view bytes, int64_t height, int64_t width, int bits, const std::string& path);
std::string encode_png(const Image& image);
/// Returns a JPEG of this quality, 1 to 100: what other ways to store images are measured against.
std::string encode_jpeg(const Image& image, int quality);

}  // namespace brume
