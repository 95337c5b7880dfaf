#pragma once
// The door to OpenCV, which reads and writes compressed images: everything outside image_codec.cpp is RGB.
#include <string>
#include <string_view>

#include "brume/image/image.h"

namespace brume {

/// Decodes a whole file as grey (1) or RGB (3). `has_alpha`: whether the format may hold transparency, to be composited on the grey level
/// `background`.
Image decode_image(std::string_view bytes, int64_t channels, bool has_alpha, const std::string& path, uint8_t background = 255);
std::string encode_png(const Image& image);
/// A JPEG of this quality, 1 to 100: what other ways to store images are measured against.
std::string encode_jpeg(const Image& image, int quality);

}  // namespace brume
