#include "brume/image/jpeg.h"

#include <cstdint>

#include "brume/files/refuse.h"

namespace brume {
namespace {

enum Marker : uint8_t {
  STUFFED = 0x00,
  TEM = 0x01,
  SOF0 = 0xC0,
  DHT = 0xC4,
  JPG = 0xC8,
  DAC = 0xCC,
  SOF15 = 0xCF,
  RST0 = 0xD0,
  RST7 = 0xD7,
  SOI = 0xD8,
  EOI = 0xD9,
  APP1 = 0xE1,
  APP14 = 0xEE,
  FILL = 0xFF,
};

/// Markers that no length and no data follow.
bool stands_alone(uint8_t marker) { return marker == TEM || marker == SOI || (marker >= RST0 && marker <= RST7); }

bool begins_frame(uint8_t marker) { return marker >= SOF0 && marker <= SOF15 && marker != DHT && marker != JPG && marker != DAC; }

/// Reads two bytes, the most significant first.
size_t big_endian(std::string_view bytes, size_t at) {
  return static_cast<size_t>(static_cast<uint8_t>(bytes[at])) << 8 | static_cast<uint8_t>(bytes[at + 1]);
}

/// Takes what a segment says; the first of a kind counts.
void add(JpegHeader& header, uint8_t marker, std::string_view data) {
  if (begins_frame(marker) && header.width == 0 && data.size() >= 5) {
    header.height = static_cast<int64_t>(big_endian(data, 1));
    header.width = static_cast<int64_t>(big_endian(data, 3));
  }
  if (begins_frame(marker) && header.channels == 0 && data.size() >= 6) header.channels = static_cast<uint8_t>(data[5]);
  if (marker == APP14 && data.starts_with("Adobe")) header.adobe = true;
  if (marker == APP1 && header.exif.empty() && data.starts_with(std::string_view("Exif\0\0", 6))) header.exif = data;
  if (marker == APP1 && header.xmp.empty() && data.starts_with("http://ns.adobe.com/xap/1.0/")) header.xmp = data;
}

}  // namespace

bool is_jpeg(std::string_view bytes) { return bytes.starts_with("\xff\xd8\xff"); }

JpegHeader read_jpeg_header(std::string_view jpeg, const std::string& path) {
  JpegHeader header;
  size_t offset = 0;
  bool whole = false;
  while (!whole) {
    // The next marker; in between lies nothing, or the compressed data of a scan, where 0xff is written as 0xff 0x00. An EOI
    // within a segment (the preview image of a camera) is skipped with its segment.
    offset = jpeg.find('\xff', offset);
    if (offset == std::string_view::npos || jpeg.size() - offset < 2) break;
    const auto marker = static_cast<uint8_t>(jpeg[offset + 1]);
    if (marker == EOI) {
      whole = true;
    } else if (marker == FILL) {
      offset += 1;
    } else if (marker == STUFFED || stands_alone(marker)) {
      offset += 2;
    } else {
      if (jpeg.size() - offset < 4) break;
      const size_t length = big_endian(jpeg, offset + 2);
      if (length + 2 > jpeg.size() - offset) break;
      if (length >= 2) add(header, marker, jpeg.substr(offset + 4, length - 2));
      offset += 2 + length;
    }
  }
  if (!whole) refuse(path, "is a truncated JPEG: its end (EOI) is missing");
  if (header.channels == 4 && !header.adobe)
    refuse(path, "is a JPEG of four channels that does not say whether they are inverted (Adobe's segment is missing); save it as RGB");
  return header;
}

}  // namespace brume
