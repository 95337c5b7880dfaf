#include "brume/image/resize_crop.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/errors.h"
#include "brume/core/seed.h"
#include "brume/image/image_header.h"

namespace brume {

void ResizeCrop::declare(Fields& f) {
  f.choice("resize", resize, "smallest_side: just large enough, in proportion; stretch: to the model's size; none",
           {{"smallest_side", Resize::smallest_side}, {"stretch", Resize::stretch}, {"none", Resize::none}});
  f.choice("crop", crop, "part of a larger image that is used; none: a larger image is an error",
           {{"center", Crop::center}, {"random", Crop::random}, {"none", Crop::none}});
  f.field("flip", flip, "mirror half of the images left to right; captions that say left or right become wrong");
  f.renamed("behind", "background");
  f.choice("background", background, "background of transparent images",
           {{"white", Background::white}, {"grey", Background::grey}, {"black", Background::black}});
  f.choice("on_error", on_error, "what an image that cannot be read does: stop; skip: it is left out, counted and listed",
           {{"stop", OnError::stop}, {"skip", OnError::skip}});
}

void ResizeCrop::check(const ImageShape& shape) {
  if (shape.channels != 1 && shape.channels != 3)
    throw ConfigError("image files are read as 1 or 3 channels, the model wants " + shape.text());
}

/// Returns a size at least as large as the model's images; exactly as large if nothing may be cut off.
ResizeCrop::Size ResizeCrop::resized(Size image, const ImageShape& shape, const std::string& name) const {
  if (resize == Resize::stretch) return {shape.height, shape.width};
  const auto size = [](int64_t height, int64_t width) { return std::to_string(height) + "x" + std::to_string(width); };
  std::string text = "'" + name + "' is " + size(image.height, image.width);
  if (resize == Resize::smallest_side) {
    constexpr double longest = 65536;  // pixels: a line of them may become a strip that no memory holds
    const double scale = std::max(static_cast<double>(shape.height) / static_cast<double>(image.height),
                                  static_cast<double>(shape.width) / static_cast<double>(image.width));
    if (scale * double(std::max(image.height, image.width)) > longest)
      throw ConfigError(fmt::format("{}; so narrow an image would be more than {} pixels long when it is {} by {} at least", text, longest,
                                    shape.height, shape.width));
    const auto scaled = [&](int64_t n) { return static_cast<int64_t>(std::llround(scale * static_cast<double>(n))); };
    image = {scaled(image.height), scaled(image.width)};
    text += ", " + size(image.height, image.width) + " resized";
  }
  text += ", the model wants " + size(shape.height, shape.width);
  if (image.height < shape.height || image.width < shape.width) throw ConfigError(text + "; set resize to smallest_side or stretch");
  if (crop == Crop::none && (image.height > shape.height || image.width > shape.width))
    throw ConfigError(text + "; set crop to center or random, or resize to stretch");
  return image;
}

void ResizeCrop::check_file(std::string_view bytes, const std::string& name, const ImageShape& shape) const {
  const ImageHeader header = read_image_header(bytes, name);
  if (header.height > 0 && header.width > 0) resized({header.height, header.width}, shape, name);
}

SizeIds ResizeCrop::read(std::string_view bytes, const std::string& name, const ImageShape& shape, uint64_t draw,
                         std::span<float> pixels) const {
  const uint8_t level = background == Background::white ? 255 : background == Background::grey ? 128 : 0;
  Image image = decode_image_file(bytes, name, shape.channels, level);
  const Size stored{image.height, image.width}, size = resized(stored, shape, name);
  if (resize != Resize::none) image = brume::resize(image, size.height, size.width);
  int64_t top = (image.height - shape.height) / 2, left = (image.width - shape.width) / 2;
  SplitMix random(draw);
  const bool mirror = random.coin() && flip;
  if (crop == Crop::random) {
    top = int64_t(random.below(uint64_t(image.height - shape.height) + 1));
    left = int64_t(random.below(uint64_t(image.width - shape.width) + 1));
  }
  float* to = pixels.data();
  for (int64_t c = 0; c < shape.channels; ++c)
    for (int64_t y = 0; y < shape.height; ++y)
      for (int64_t x = 0; x < shape.width; ++x) {
        const int64_t from = left + (mirror ? shape.width - 1 - x : x);
        *to++ = static_cast<float>(image.row(top + y)[from * shape.channels + c]) / 127.5f - 1;
      }
  return {.original_height = stored.height,
          .original_width = stored.width,
          .top = top,
          .left = mirror ? image.width - shape.width - left : left,
          .target_height = shape.height,
          .target_width = shape.width};
}

}  // namespace brume
