#pragma once
// PNG as a sequence of chunks (https://www.w3.org/TR/png-3/): checking that a file is whole, text, animation. Pixels are
// compressed and decompressed elsewhere (image.cpp).
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace brume {

using PngText = std::map<std::string, std::string>;

bool is_png(std::string_view bytes);

struct PngHeader {
  int64_t height = 0, width = 0;             ///< as stored
  std::string exif;                          ///< the chunk eXIf, or what ImageMagick writes into a text; empty if the file has none
  std::string xmp;                           ///< the text XML:com.adobe.xmp; empty if the file has none
  std::optional<uint16_t> transparent_grey;  ///< of a grey image, the level that is transparent (tRNS), scaled to 8 bits if it has fewer
};
/// Throws ConfigError if a chunk is cut short or its checksum is wrong, or if the end (IEND) is missing.
PngHeader read_png_header(std::string_view png, const std::string& path);
PngText png_text(std::string_view png, const std::string& path);

/// Returns the same image with text chunks before its pixels, so that programs that do not read to the end find them.
std::string with_text(std::string_view png, const PngText& text, const std::string& path);
/// Returns a PNG of RGB rows as they are, without the filters that photographs want: drawings repeat, and come out a third smaller.
std::string plain_png(int64_t height, int64_t width, std::string_view rgb);
/// Returns one animation of PNGs of equal size and format, each shown for `delay_ms`.
std::string animation(const std::vector<std::string>& pngs, int64_t delay_ms);

}  // namespace brume
