#include "brume/image/stored_pixels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>
#include <vector>

#include "brume/files/refuse.h"
#include "brume/image/tiff.h"

namespace brume {
namespace {

enum Photometric : uint32_t { white_is_zero = 0, black_is_zero = 1, rgb = 2 };
constexpr uint32_t associated = 1, unassociated = 2;  // alpha that colours are multiplied by, and that they are not

/// Returns `colour` over the background, all in [0, 1] but the background.
uint8_t composited(double colour, double alpha, bool premultiplied, uint8_t background) {
  const double value = (premultiplied ? colour : colour * alpha) * 255 + background * (1 - alpha);
  return static_cast<uint8_t>(std::lround(std::clamp(value, 0.0, 255.0)));
}

/// Undoes the difference of each sample to the one before it of its kind (TIFF 6.0, section 14), in rows of two samples per pixel.
void undo_differences(std::vector<uint16_t>& samples, int64_t width, uint16_t most) {
  for (size_t row = 0; row < samples.size(); row += static_cast<size_t>(2 * width))
    for (size_t i = row + 2; i < row + static_cast<size_t>(2 * width); ++i)
      samples[i] = static_cast<uint16_t>((samples[i] + samples[i - 2]) & most);
}

/// Decodes a grey TIFF with a second sample. OpenCV knows none: it decodes the same bytes as a grey image of twice the width.
Image grey_of_two(std::string_view bytes, const Decoding& how, const std::string& name) {
  using Tiff = TiffDirectory;
  const Tiff tiff(bytes);
  const auto value = [&](Tiff::Tag tag, uint32_t usual) { return tiff.value(tag).value_or(usual); };
  const uint32_t bits = value(Tiff::bits_per_sample, 1), width = value(Tiff::image_width, 0), height = value(Tiff::image_length, 0);
  const uint32_t compression = value(Tiff::compression, 1), predictor = value(Tiff::predictor, 1);
  constexpr uint32_t old_jpeg = 6, jpeg = 7, ccitt = 2, fax = 4, differences = 2, widest = 32767;
  if ((bits != 8 && bits != 16) || (compression >= ccitt && compression <= fax) || compression == old_jpeg || compression == jpeg ||
      predictor > differences || value(Tiff::planar_configuration, 1) != 1 || width > widest)
    refuse(name, "is a grey TIFF with transparency, stored in a way that cannot be read; save it as PNG, or without transparency");
  std::string wide = tiff.renamed(Tiff::extra_samples, Tiff::target_printer);  // which readers pass over
  const std::pair<Tiff::Tag, uint32_t> changes[] = {{Tiff::image_width, 2 * width}, {Tiff::tile_width, 2 * value(Tiff::tile_width, 0)},
                                                    {Tiff::samples_per_pixel, 1},   {Tiff::photometric, black_is_zero},
                                                    {Tiff::predictor, 1},           {Tiff::orientation_tag, 1}};
  for (const auto& [tag, changed] : changes) wide = Tiff(wide).with(tag, changed);
  std::vector<uint16_t> samples = decode_samples(wide, height, 2 * int64_t{width}, static_cast<int>(bits), name);
  const auto most = static_cast<uint16_t>(bits == 16 ? 0xffff : 0xff);
  if (predictor == differences) undo_differences(samples, width, most);
  const bool white = value(Tiff::photometric, black_is_zero) == white_is_zero;
  const uint32_t extra = value(Tiff::extra_samples, 0);
  Image image(height, width, how.channels);
  for (size_t i = 0; i < samples.size() / 2; ++i) {
    const double stored = static_cast<double>(samples[2 * i]) / most, alpha = static_cast<double>(samples[2 * i + 1]) / most;
    const bool transparent = extra == associated || extra == unassociated;
    const uint8_t grey = composited(white ? 1 - stored : stored, transparent ? alpha : 1, extra == associated, how.background);
    std::fill_n(image.pixels.begin() + static_cast<std::ptrdiff_t>(i) * how.channels, how.channels, grey);
  }
  return image;
}

uint32_t little_endian(std::string_view bytes, size_t at, size_t width) {
  uint32_t value = 0;
  for (size_t i = width; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

}  // namespace

Image stored_tiff(std::string_view bytes, Decoding how, const std::string& name) {
  using Tiff = TiffDirectory;
  const Tiff tiff(bytes);
  const auto value = [&](Tiff::Tag tag, uint32_t usual) { return tiff.value(tag).value_or(usual); };
  const uint32_t bits = value(Tiff::bits_per_sample, 1), samples = value(Tiff::samples_per_pixel, 1);
  const uint32_t extra = value(Tiff::extra_samples, 0), colours = value(Tiff::photometric, black_is_zero);
  if (value(Tiff::sample_format, 1) != 1) refuse(name, "is a TIFF of signed numbers or fractions (readable: 8 and 16 bits without sign)");
  const bool grey = colours == white_is_zero || colours == black_is_zero;
  if (bits == 16 && !grey && colours != rgb)
    refuse(name, "is a TIFF of 16 bits that is neither grey nor RGB; save it with 8 bits, or as RGB");
  if (bits == 16 && samples > 1 && value(Tiff::planar_configuration, 1) != 1)
    refuse(name, "is a TIFF of 16 bits in planes; save it with its channels interleaved");
  if (grey && samples == 2) return grey_of_two(bytes, how, name);
  how.premultiplied = extra == associated || (extra == unassociated && bits <= 8);  // libtiff multiplies these by their alpha
  // OpenCV follows the orientation, and that 0 may be white, as far as its version does.
  const bool white = bits == 16 && colours == white_is_zero;
  std::string changed;
  if (tiff.orientation() != 1) changed = tiff.with(Tiff::orientation_tag, 1);
  if (white) changed = Tiff(changed.empty() ? bytes : changed).with(Tiff::photometric, black_is_zero);
  Image image = decode_image(changed.empty() ? bytes : std::string_view(changed), how, name);
  if (white)
    for (uint8_t& pixel : image.pixels) pixel = static_cast<uint8_t>(255 - pixel);
  return image;
}

bool bmp_has_alpha(std::string_view bmp) {
  constexpr uint32_t bit_fields = 3, alpha_bit_fields = 6, with_alpha = 56;
  if (bmp.size() < 14 + with_alpha || little_endian(bmp, 14, 4) < with_alpha || little_endian(bmp, 28, 2) != 32) return false;
  const uint32_t compression = little_endian(bmp, 30, 4);
  return (compression == bit_fields || compression == alpha_bit_fields) && little_endian(bmp, 66, 4) != 0;
}

Image transparent_bmp(std::string_view bmp, const Decoding& how, const std::string& name) {
  const size_t begin = little_endian(bmp, 10, 4);
  const auto wide = static_cast<int32_t>(little_endian(bmp, 18, 4)), high = static_cast<int32_t>(little_endian(bmp, 22, 4));
  const int64_t width = wide, height = std::abs(int64_t{high});
  constexpr int64_t most = int64_t{1} << 30;  // pixels, as OpenCV allows
  if (width < 1 || height < 1 || width > most / height) refuse(name, fmt::format("is a damaged BMP: its size is {} by {}", width, height));
  const auto pixels = static_cast<size_t>(width * height);
  if (begin > bmp.size() || (bmp.size() - begin) / 4 < pixels) refuse(name, "is a truncated BMP: pixels are missing");
  uint32_t masks[4];  // red, green, blue, alpha
  for (size_t i = 0; i < 4; ++i) masks[i] = little_endian(bmp, 54 + 4 * i, 4);
  const auto share = [](uint32_t pixel, uint32_t mask) {
    return mask == 0 ? 0.0 : double(pixel & mask) / double(mask);  // the place of the bits cancels
  };
  Image image(height, width, how.channels);
  for (size_t i = 0; i < pixels; ++i) {
    const uint32_t pixel = little_endian(bmp, begin + 4 * i, 4);
    const double alpha = share(pixel, masks[3]);
    const int64_t y = static_cast<int64_t>(i) / width, x = static_cast<int64_t>(i) % width;
    uint8_t* to = image.row(high < 0 ? y : height - 1 - y) + x * how.channels;
    double colour[3];
    for (size_t c = 0; c < 3; ++c) colour[c] = share(pixel, masks[c]);
    if (how.channels == 1) colour[0] = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2];
    for (int64_t c = 0; c < how.channels; ++c) to[c] = composited(colour[c], alpha, false, how.background);
  }
  return image;
}

}  // namespace brume
