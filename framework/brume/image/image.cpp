#include "brume/image/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>

#include "brume/config/counted.h"
#include "brume/files/atomic_file.h"
#include "brume/files/mapped_file.h"
#include "brume/files/refuse.h"
#include "brume/image/image_codec.h"
#include "brume/image/image_header.h"
#include "brume/image/png.h"
#include "brume/image/stored_pixels.h"
#include "brume/image/webp.h"

namespace brume {
namespace {

/// Returns an image file as it is stored; of an animation, the first frame on its canvas.
Image stored_image(std::string_view bytes, const ImageHeader& header, Decoding how, const std::string& name) {
  using Format = ImageHeader::Format;
  how.alpha = header.format == Format::png || header.format == Format::webp || header.format == Format::tiff;
  how.transparent_grey = header.transparent_grey;
  if (header.format == Format::tiff) return stored_tiff(bytes, how, name);
  if (header.format == Format::bmp && bmp_has_alpha(bytes)) return transparent_bmp(bytes, how, name);
  const std::optional<WebpFrame> frame = header.format == Format::webp ? first_frame(bytes, name) : std::nullopt;
  if (!frame) return decode_image(bytes, how, name);
  const Image image = decode_image(frame->file, how, name);
  constexpr int64_t most = int64_t{1} << 30;  // pixels, as OpenCV allows
  if (frame->top + image.height > frame->height || frame->left + image.width > frame->width || frame->height * frame->width > most)
    refuse(name, "is a damaged WebP: the first frame of its animation does not fit");
  Image canvas(frame->height, frame->width, how.channels, how.background);
  for (int64_t y = 0; y < image.height; ++y)
    std::copy_n(image.row(y), image.width * image.channels, canvas.row(frame->top + y) + frame->left * image.channels);
  return canvas;
}

template <int channels>
void copy_pixels(Image& to, const uint8_t* from, int64_t down, int64_t right) {
  uint8_t* pixel = to.pixels.data();
  for (int64_t y = 0; y < to.height; ++y)
    for (int64_t x = 0; x < to.width; ++x)
      for (int c = 0; c < channels; ++c) *pixel++ = from[y * down + x * right + c];
}

/// Turns and mirrors a stored image as its orientation says (TIFF 6.0, tag 274).
Image upright(Image stored, int orientation) {
  if (orientation == 1) return stored;
  const bool on_side = orientation >= 5;
  const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  Image image(on_side ? stored.width : stored.height, on_side ? stored.height : stored.width, stored.channels);
  const uint8_t* corner = stored.row(from_bottom ? stored.height - 1 : 0) + (from_right ? stored.width - 1 : 0) * stored.channels;
  const int64_t row = (from_bottom ? -1 : 1) * stored.width * stored.channels, column = (from_right ? -1 : 1) * stored.channels;
  const auto copy = stored.channels == 1 ? copy_pixels<1> : copy_pixels<3>;
  copy(image, corner, on_side ? column : row, on_side ? row : column);
  return image;
}

}  // namespace

Image::Image(int64_t height_, int64_t width_, int64_t channels_, uint8_t value) : height(height_), width(width_), channels(channels_) {
  if (height < 0 || width < 0 || (channels != 1 && channels != 3)) {
    throw std::logic_error(fmt::format("no image: {}x{} with {}", height, width, counted(channels, "channel")));
  }
  pixels.assign(static_cast<size_t>(height * width * channels), value);
}

Image decode_image_file(std::string_view bytes, const std::string& name, int64_t channels, uint8_t background) {
  if (channels != 1 && channels != 3) throw std::logic_error(fmt::format("read_image: {}", counted(channels, "channel")));
  const ImageHeader header = read_image_header(bytes, name);
  return upright(stored_image(bytes, header, {.channels = channels, .background = background}, name), header.orientation);
}

Image read_image(const std::string& path, int64_t channels, uint8_t background) {
  const auto file = MappedFile::open(path);
  return decode_image_file(file->bytes(), path, channels, background);
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
