#pragma once
// Images in memory and on disk. Rows of pixels, channels interleaved, RGB or grey, 8 bits.
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace at {
class Tensor;
}

namespace brume {

struct Image {
  int64_t height = 0;
  int64_t width = 0;
  int64_t channels = 3;         ///< 1 (grey) or 3 (RGB)
  std::vector<uint8_t> pixels;  ///< [height, width, channels]

  Image() = default;
  Image(int64_t height, int64_t width, int64_t channels, uint8_t value = 0);
  uint8_t* row(int64_t y) { return pixels.data() + y * width * channels; }
  const uint8_t* row(int64_t y) const { return pixels.data() + y * width * channels; }
  bool operator==(const Image&) const = default;
};

/// Reads PNG, JPEG, WebP, BMP, TIFF or PNM as `channels` = 1 (grey) or 3 (RGB). Composites transparent pixels on the grey level
/// `background`, scales 16 bits to 8, turns and mirrors the image as its orientation says (Exif or XMP in PNG, JPEG and WebP; TIFF's own
/// tag), and takes the first frame of an animation. Throws ConfigError if the file is damaged, cut short or of another format: a truncated
/// PNG, JPEG or WebP is never half an image.
Image read_image(const std::string& path, int64_t channels = 3, uint8_t background = 255);
/// Returns the same of the bytes of a file, called `name` in errors.
Image decode_image_file(std::string_view bytes, const std::string& name, int64_t channels = 3, uint8_t background = 255);

/// Writes a PNG, with `text` as its text chunks (keys of 1 to 79 Latin characters, values UTF-8). Atomic.
void write_png(const std::string& path, const Image& image, const std::map<std::string, std::string>& text = {});
/// Writes a tensor, as to_image reads it.
void write_png(const std::string& path, const at::Tensor& image);
/// Returns the text chunks of a PNG.
std::map<std::string, std::string> read_png_text(const std::string& path);
/// Writes an animated PNG (lossless, shown by browsers; other programs show its first frame), repeating for ever. Atomic.
void write_apng(const std::string& path, const std::vector<Image>& frames, int64_t delay_ms,
                const std::map<std::string, std::string>& text = {});

/// Averages areas to shrink, interpolates cubically to enlarge.
Image resize(const Image& image, int64_t height, int64_t width);
/// Returns every pixel repeated factor x factor times.
Image enlarge(const Image& image, int64_t factor);
Image flip_horizontal(const Image& image);

/// Returns float32 [C, H, W] in [-1, 1].
at::Tensor to_tensor(const Image& image);
/// Returns the image of [C, H, W], any floating dtype and device, clamped to [-1, 1] and rounded to the nearest; NaN becomes black.
Image to_image(const at::Tensor& tensor);

/// Returns one line of small black text on white, `width` pixels wide, cut short with "..." if too long. ASCII; anything else is '?'.
Image text_line(const std::string& text, int64_t width, int64_t channels = 3);
/// Returns the text broken between words into lines that fit `width` pixels, `most` of them at most: what is left over stands in the last.
std::vector<std::string> broken_text(const std::string& text, int64_t width, size_t most);

/// Returns images of one size in a grid, row by row, `padding` white pixels around each.
Image grid(const std::vector<Image>& images, int64_t columns, int64_t padding = 2);
/// Returns the same with text above each image, in up to four lines (fewer labels than images leave the rest blank). Images narrower than
/// 64 pixels, or than 128 if a label does not fit a line of 64, are enlarged by a whole factor, so that there is room for text.
Image labelled_grid(const std::vector<Image>& images, int64_t columns, const std::vector<std::string>& labels, int64_t padding = 2);

}  // namespace brume
