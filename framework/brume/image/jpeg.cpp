#include "brume/image/jpeg.h"

#include <cstdint>

#include "brume/files/refuse.h"

namespace brume {
namespace {

enum Marker : uint8_t { STUFFED = 0x00, TEM = 0x01, RST0 = 0xD0, RST7 = 0xD7, SOI = 0xD8, EOI = 0xD9, FILL = 0xFF };

/// Markers that no length and no data follow.
bool stands_alone(uint8_t marker) { return marker == TEM || marker == SOI || (marker >= RST0 && marker <= RST7); }

}  // namespace

bool is_jpeg(std::string_view bytes) { return bytes.starts_with("\xff\xd8\xff"); }

void check_jpeg(std::string_view jpeg, const std::string& path) {
  size_t offset = 0;
  for (;;) {
    // The next marker; in between lies nothing, or the compressed data of a scan, where 0xff is written as 0xff 0x00. An EOI
    // within a segment (the preview image of a camera) is skipped with its segment.
    offset = jpeg.find('\xff', offset);
    if (offset == std::string_view::npos || jpeg.size() - offset < 2) break;
    const auto marker = static_cast<uint8_t>(jpeg[offset + 1]);
    if (marker == EOI) return;
    if (marker == FILL) {
      offset += 1;
    } else if (marker == STUFFED || stands_alone(marker)) {
      offset += 2;
    } else {
      if (jpeg.size() - offset < 4) break;
      const size_t length = static_cast<size_t>(static_cast<uint8_t>(jpeg[offset + 2])) << 8 | static_cast<uint8_t>(jpeg[offset + 3]);
      if (length + 2 > jpeg.size() - offset) break;
      offset += 2 + length;
    }
  }
  refuse(path, "is a truncated JPEG: its end (EOI) is missing");
}

}  // namespace brume
