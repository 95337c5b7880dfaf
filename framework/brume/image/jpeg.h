#pragma once
// JPEG as a sequence of segments (ITU T.81, annex B): whether a file is whole, since decoders fill what is missing with grey and say
// nothing; its size, its Exif data and XMP.
#include <cstdint>
#include <string>
#include <string_view>

namespace brume {

struct JpegHeader {
  int64_t height = 0, width = 0;  ///< as stored; 0 if the header does not say
  std::string_view exif, xmp;     ///< empty if the file has none
  int channels = 0;               ///< 0 if the header does not say
  bool adobe = false;             ///< has the segment of Adobe's programs, which store CMYK inverted
};

bool is_jpeg(std::string_view bytes);
/// Throws ConfigError if the file ends before the end of its image (EOI), or if nothing says how its four channels are to be read.
JpegHeader read_jpeg_header(std::string_view jpeg, const std::string& path);

}  // namespace brume
