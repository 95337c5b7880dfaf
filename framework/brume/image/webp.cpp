#include "brume/image/webp.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "brume/files/refuse.h"

namespace brume {
namespace {

constexpr size_t file_header = 12, chunk_header = 8;

uint32_t little_endian(std::string_view bytes, size_t at, size_t width) {
  uint32_t value = 0;
  for (size_t i = width; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

std::string in_bytes(uint32_t value, size_t width) {
  std::string bytes;
  for (size_t i = 0; i < width; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
  return bytes;
}

struct Chunk {
  std::string_view type, data;
};

/// Returns all whole chunks; each is filled up to an even length.
std::vector<Chunk> chunks_of(std::string_view bytes) {
  std::vector<Chunk> chunks;
  while (bytes.size() >= chunk_header) {
    const size_t size = little_endian(bytes, 4, 4);
    if (size > bytes.size() - chunk_header) break;
    chunks.push_back({bytes.substr(0, 4), bytes.substr(chunk_header, size)});
    bytes.remove_prefix(std::min(bytes.size(), chunk_header + size + size % 2));
  }
  return chunks;
}

std::vector<Chunk> chunks_of_file(std::string_view webp) { return chunks_of(webp.substr(std::min(webp.size(), file_header))); }

/// Returns null if there is no chunk of the type.
const Chunk* find(const std::vector<Chunk>& chunks, std::string_view type) {
  const auto found = std::find_if(chunks.begin(), chunks.end(), [&](const Chunk& c) { return c.type == type; });
  return found == chunks.end() ? nullptr : &*found;
}

void append(std::string& file, std::string_view type, std::string_view data) {
  file.append(type).append(in_bytes(static_cast<uint32_t>(data.size()), 4)).append(data);
  if (data.size() % 2) file += '\0';
}

/// Returns a file of one image: its bits, and the alpha plane that VP8 keeps in a chunk of its own.
std::string still(const Chunk& bits, const Chunk* alpha, uint32_t height, uint32_t width) {
  std::string chunks;
  if (alpha && bits.type == "VP8 ") {
    constexpr uint32_t has_alpha = 0x10;
    append(chunks, "VP8X", in_bytes(has_alpha, 4) + in_bytes(width - 1, 3) + in_bytes(height - 1, 3));
    append(chunks, alpha->type, alpha->data);
  }
  append(chunks, bits.type, bits.data);
  return "RIFF" + in_bytes(static_cast<uint32_t>(4 + chunks.size()), 4) + "WEBP" + chunks;
}

}  // namespace

bool is_webp(std::string_view bytes) { return bytes.size() >= file_header && bytes.starts_with("RIFF") && bytes.substr(8, 4) == "WEBP"; }

void check_webp(std::string_view webp, const std::string& path) {
  const uint64_t needed = uint64_t{little_endian(webp, 4, 4)} + 8;
  if (needed > webp.size()) refuse(path, fmt::format("is a truncated WebP: {} bytes are missing", needed - webp.size()));
}

std::pair<int64_t, int64_t> webp_size(std::string_view webp) {
  const std::vector<Chunk> chunks = chunks_of_file(webp);
  if (const Chunk* canvas = find(chunks, "VP8X"); canvas && canvas->data.size() >= 10)
    return {little_endian(canvas->data, 7, 3) + 1, little_endian(canvas->data, 4, 3) + 1};
  if (const Chunk* lossless = find(chunks, "VP8L"); lossless && lossless->data.size() >= 5) {
    const uint32_t bits = little_endian(lossless->data, 1, 4);  // after its signature: 14 bits of each
    return {(bits >> 14 & 0x3fff) + 1, (bits & 0x3fff) + 1};
  }
  if (const Chunk* lossy = find(chunks, "VP8 "); lossy && lossy->data.size() >= 10)  // after the frame tag and the start code
    return {little_endian(lossy->data, 8, 2) & 0x3fff, little_endian(lossy->data, 6, 2) & 0x3fff};
  return {0, 0};
}

std::pair<std::string_view, std::string_view> webp_exif_and_xmp(std::string_view webp) {
  const std::vector<Chunk> chunks = chunks_of_file(webp);
  const Chunk *exif = find(chunks, "EXIF"), *xmp = find(chunks, "XMP ");
  return {exif ? exif->data : std::string_view(), xmp ? xmp->data : std::string_view()};
}

std::optional<WebpFrame> first_frame(std::string_view webp, const std::string& path) {
  const std::vector<Chunk> chunks = chunks_of_file(webp);
  const Chunk* canvas = find(chunks, "VP8X");
  constexpr uint8_t animated = 0x02;
  if (!canvas || canvas->data.size() < 10 || !(static_cast<uint8_t>(canvas->data[0]) & animated)) return {};
  const Chunk* frame = find(chunks, "ANMF");
  constexpr size_t frame_header = 16;
  if (!frame || frame->data.size() < frame_header) refuse(path, "is a damaged WebP: an animation without a frame");
  const uint32_t width = little_endian(frame->data, 6, 3) + 1, height = little_endian(frame->data, 9, 3) + 1;
  const std::vector<Chunk> parts = chunks_of(frame->data.substr(frame_header));
  const Chunk* bits = find(parts, "VP8L");
  if (!bits) bits = find(parts, "VP8 ");
  if (!bits) refuse(path, "is a damaged WebP: the first frame of its animation has no pixels");
  const auto [canvas_height, canvas_width] = webp_size(webp);
  return WebpFrame{still(*bits, find(parts, "ALPH"), height, width), canvas_height, canvas_width,
                   2 * int64_t{little_endian(frame->data, 3, 3)}, 2 * int64_t{little_endian(frame->data, 0, 3)}};
}

}  // namespace brume
