#include "brume/image/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>

#include "brume/files/atomic_file.h"
#include "brume/files/mapped_file.h"
#include "brume/files/refuse.h"
#include "brume/image/image_codec.h"
#include "brume/image/jpeg.h"
#include "brume/image/png.h"

namespace brume {
namespace {

uint32_t little_endian(std::string_view bytes, size_t offset) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[offset + i]);
  return value;
}

bool is_webp(std::string_view bytes) { return bytes.size() >= 12 && bytes.starts_with("RIFF") && bytes.substr(8, 4) == "WEBP"; }
bool is_bmp(std::string_view bytes) { return bytes.starts_with("BM"); }

bool is_tiff(std::string_view bytes) {
  constexpr std::string_view little("II*\0", 4), big("MM\0*", 4);
  return bytes.starts_with(little) || bytes.starts_with(big);
}

/// Portable bitmap, graymap, pixmap: "P1" to "P6".
bool is_pnm(std::string_view bytes) { return bytes.size() > 2 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '6'; }

void check_webp(std::string_view bytes, const std::string& path) {
  const uint64_t needed = uint64_t{little_endian(bytes, 4)} + 8;
  if (needed > bytes.size()) refuse(path, fmt::format("is a truncated WebP: {} bytes are missing", needed - bytes.size()));
}

/// Refuses what is cut short, since decoders deliver half an image without a word. Formats beyond these OpenCV may read as
/// well, through libraries (GDAL) that open other files: not from here.
void check_format(std::string_view bytes, const std::string& path) {
  if (bytes.empty()) refuse(path, "is empty");
  if (is_png(bytes)) return check_png(bytes, path);
  if (is_jpeg(bytes)) return check_jpeg(bytes, path);
  if (is_webp(bytes)) return check_webp(bytes, path);
  if (is_bmp(bytes) || is_tiff(bytes) || is_pnm(bytes)) return;
  refuse(path, "is no image brume reads (readable: PNG, JPEG, WebP, BMP, TIFF, PNM)");
}

}  // namespace

Image::Image(int64_t height_, int64_t width_, int64_t channels_, uint8_t value) : height(height_), width(width_), channels(channels_) {
  if (height < 0 || width < 0 || (channels != 1 && channels != 3)) {
    throw std::logic_error(fmt::format("no image: {}x{} with {} channels", height, width, channels));
  }
  pixels.assign(static_cast<size_t>(height * width * channels), value);
}

Image decode_image_file(std::string_view bytes, const std::string& name, int64_t channels, uint8_t background) {
  if (channels != 1 && channels != 3) throw std::logic_error(fmt::format("read_image: {} channels", channels));
  check_format(bytes, name);
  return decode_image(bytes, channels, is_png(bytes) || is_webp(bytes) || is_tiff(bytes), name, background);
}

Image read_image(const std::string& path, int64_t channels) {
  const auto file = MappedFile::open(path);
  return decode_image_file(file->bytes(), path, channels);
}

void write_png(const std::string& path, const Image& image, const std::map<std::string, std::string>& text) {
  write_file(path, with_text(encode_png(image), text, path));
}

std::map<std::string, std::string> read_png_text(const std::string& path) {
  const auto file = MappedFile::open(path);
  return png_text(file->bytes(), path);
}

void write_apng(const std::string& path, const std::vector<Image>& frames, int64_t delay_ms,
                const std::map<std::string, std::string>& text) {
  std::vector<std::string> pngs;
  pngs.reserve(frames.size());
  for (const auto& frame : frames) pngs.push_back(encode_png(frame));
  write_file(path, with_text(animation(pngs, delay_ms), text, path));
}

Image enlarge(const Image& image, int64_t factor) {
  if (factor < 1) throw std::logic_error(fmt::format("enlarge by {}", factor));
  Image large(image.height * factor, image.width * factor, image.channels);
  for (int64_t y = 0; y < large.height; ++y) {
    const uint8_t* from = image.row(y / factor);
    uint8_t* to = large.row(y);
    for (int64_t x = 0; x < large.width; ++x) to = std::copy_n(from + x / factor * image.channels, image.channels, to);
  }
  return large;
}

Image flip_horizontal(const Image& image) {
  Image flipped(image.height, image.width, image.channels);
  for (int64_t y = 0; y < image.height; ++y) {
    for (int64_t x = 0; x < image.width; ++x) {
      std::copy_n(image.row(y) + x * image.channels, image.channels, flipped.row(y) + (image.width - 1 - x) * image.channels);
    }
  }
  return flipped;
}

}  // namespace brume
