// Many images on one sheet.
#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "brume/config/counted.h"
#include "brume/image/image.h"

namespace brume {
namespace {

constexpr uint8_t white = 255;
constexpr int64_t legible_width = 64;
constexpr size_t most_lines = 4;

void check_sheet(const std::vector<Image>& images, int64_t columns, int64_t padding) {
  if (images.empty() || columns < 1 || padding < 0) {
    throw std::logic_error(
        fmt::format("a grid of {}, {}, padding {}", counted(images.size(), "image"), counted(columns, "column"), padding));
  }
  const auto& first = images[0];
  for (const auto& image : images) {
    if (image.height == first.height && image.width == first.width && image.channels == first.channels) continue;
    throw std::logic_error(fmt::format("a grid of images of {}x{}x{} and {}x{}x{}", first.height, first.width, first.channels, image.height,
                                       image.width, image.channels));
  }
}

void paste(const Image& image, Image& sheet, int64_t top, int64_t left) {
  for (int64_t y = 0; y < image.height; ++y) {
    std::copy_n(image.row(y), image.width * image.channels, sheet.row(top + y) + left * sheet.channels);
  }
}

/// Returns `above` on top of `below`, which is as wide.
Image stacked(const Image& above, const Image& below) {
  Image both(above.height + below.height, below.width, below.channels);
  paste(above, both, 0, 0);
  paste(below, both, above.height, 0);
  return both;
}

}  // namespace

Image grid(const std::vector<Image>& images, int64_t columns, int64_t padding) {
  check_sheet(images, columns, padding);
  const auto count = static_cast<int64_t>(images.size());
  columns = std::min(columns, count);
  const int64_t rows = (count + columns - 1) / columns;
  const int64_t height = images[0].height + padding, width = images[0].width + padding;
  Image sheet(rows * height + padding, columns * width + padding, images[0].channels, white);
  for (int64_t i = 0; i < count; ++i) {
    paste(images[static_cast<size_t>(i)], sheet, padding + i / columns * height, padding + i % columns * width);
  }
  return sheet;
}

Image labelled_grid(const std::vector<Image>& images, int64_t columns, const std::vector<std::string>& labels, int64_t padding) {
  check_sheet(images, columns, padding);
  if (labels.size() > images.size()) {
    throw std::logic_error(fmt::format("a grid of {} with {}", counted(images.size(), "image"), counted(labels.size(), "label")));
  }
  bool fits = true;
  for (const auto& label : labels) fits = fits && broken_text(label, std::max(images[0].width, legible_width), 2).size() == 1;
  const int64_t legible = fits ? legible_width : 2 * legible_width, own = std::max<int64_t>(images[0].width, 1);
  const int64_t factor = std::max<int64_t>((legible + own - 1) / own, 1), width = factor * own;
  size_t lines = 1;
  for (const auto& label : labels) lines = std::max(lines, broken_text(label, width, most_lines).size());
  std::vector<Image> tiles;
  for (size_t i = 0; i < images.size(); ++i) {
    auto text = broken_text(i < labels.size() ? labels[i] : "", width, most_lines);
    text.resize(lines);
    auto tile = enlarge(images[i], factor);
    for (size_t k = lines; k-- > 0;) tile = stacked(text_line(text[k], width, tile.channels), tile);
    tiles.push_back(std::move(tile));
  }
  return grid(tiles, columns, padding);
}

}  // namespace brume
