#pragma once
// What the bytes of an image file tell before a pixel is decoded.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace brume {

struct ImageHeader {
  enum class Format { png, jpeg, webp, bmp, tiff, pnm };
  Format format = Format::png;
  int64_t height = 0, width = 0;             ///< of the upright image; 0 if the header does not tell
  int orientation = 1;                       ///< of Exif, XMP or TIFF, 1 to 8: how the stored image is turned and mirrored
  std::optional<uint16_t> transparent_grey;  ///< of a grey PNG
};

/// Throws ConfigError if a file is cut short, as far as its format shows that without decoding, or is no format that brume reads. OpenCV
/// reads other formats through libraries (GDAL) that open other files: not from here.
ImageHeader read_image_header(std::string_view bytes, const std::string& name);

}  // namespace brume
