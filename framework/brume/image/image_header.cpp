#include "brume/image/image_header.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "brume/files/refuse.h"
#include "brume/image/jpeg.h"
#include "brume/image/png.h"
#include "brume/image/tiff.h"
#include "brume/image/webp.h"

namespace brume {
namespace {

using Size = std::pair<int64_t, int64_t>;  // height and width; zeros if unknown

bool is_bmp(std::string_view bytes) { return bytes.starts_with("BM"); }

/// Returns true for a portable bitmap, graymap, pixmap: "P1" to "P6".
bool is_pnm(std::string_view bytes) { return bytes.size() > 2 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '6'; }

Size bmp_size(std::string_view bmp) {
  const auto number = [&](size_t at, size_t width) {
    uint32_t value = 0;
    for (size_t i = width; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bmp[at + i]);
    return value;
  };
  if (bmp.size() < 26) return {0, 0};
  constexpr uint32_t of_os2 = 12;
  if (number(14, 4) == of_os2) return {number(20, 2), number(18, 2)};
  const auto height = static_cast<int32_t>(number(22, 4));  // negative: stored from top to bottom
  return {std::abs(int64_t{height}), std::abs(int64_t{static_cast<int32_t>(number(18, 4))})};
}

/// Returns the first two numbers after the magic; '#' begins a comment.
Size pnm_size(std::string_view pnm) {
  int64_t numbers[2] = {0, 0};
  size_t at = 2;
  for (int64_t& number : numbers) {
    while (at < pnm.size() && (pnm[at] == ' ' || (pnm[at] >= '\t' && pnm[at] <= '\r') || pnm[at] == '#'))
      at = pnm[at] == '#' ? std::min(pnm.find('\n', at), pnm.size()) : at + 1;
    for (; at < pnm.size() && pnm[at] >= '0' && pnm[at] <= '9' && number < 100'000'000; ++at) number = 10 * number + (pnm[at] - '0');
  }
  return {numbers[1], numbers[0]};
}

ImageHeader with(ImageHeader::Format format, Size stored, int orientation) {
  if (orientation >= 5) std::swap(stored.first, stored.second);  // lies on its side
  return {format, stored.first, stored.second, orientation, {}};
}

}  // namespace

ImageHeader read_image_header(std::string_view bytes, const std::string& name) {
  using Format = ImageHeader::Format;
  if (bytes.empty()) refuse(name, "is empty");
  if (is_png(bytes)) {
    const PngHeader png = read_png_header(bytes, name);
    ImageHeader header = with(Format::png, {png.height, png.width}, orientation_of(png.exif, png.xmp));
    header.transparent_grey = png.transparent_grey;
    return header;
  }
  if (is_jpeg(bytes)) {
    const JpegHeader jpeg = read_jpeg_header(bytes, name);
    return with(Format::jpeg, {jpeg.height, jpeg.width}, orientation_of(jpeg.exif, jpeg.xmp));
  }
  if (is_webp(bytes)) {
    check_webp(bytes, name);
    const auto [exif, xmp] = webp_exif_and_xmp(bytes);
    return with(Format::webp, webp_size(bytes), orientation_of(exif, xmp));
  }
  if (is_tiff(bytes)) {
    const TiffDirectory tiff(bytes);
    return with(Format::tiff, {tiff.value(TiffDirectory::image_length).value_or(0), tiff.value(TiffDirectory::image_width).value_or(0)},
                tiff.orientation());
  }
  if (is_bmp(bytes)) return with(Format::bmp, bmp_size(bytes), 1);
  if (is_pnm(bytes)) return with(Format::pnm, pnm_size(bytes), 1);
  refuse(name, "is no image brume reads (readable: PNG, JPEG, WebP, BMP, TIFF, PNM)");
}

}  // namespace brume
