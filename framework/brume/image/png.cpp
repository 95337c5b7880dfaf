#include "brume/image/png.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <stdexcept>

#include "brume/config/utf8.h"
#include "brume/files/refuse.h"

namespace brume {
namespace {

constexpr std::string_view signature{"\x89PNG\r\n\x1a\n", 8};
constexpr size_t max_text = size_t{64} << 20;  // of all compressed texts: a small chunk can hold a thousand times its size

struct Chunk {
  std::string_view type;
  std::string_view data;
};

uint32_t big_endian(std::string_view bytes, size_t offset) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[offset + i]);
  return value;
}

void append_big_endian(std::string& bytes, uint32_t value, int width = 4) {
  for (int i = width - 1; i >= 0; --i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
}

uint32_t checksum(std::string_view bytes) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

void append_chunk(std::string& png, std::string_view type, std::string_view data) {
  append_big_endian(png, static_cast<uint32_t>(data.size()));
  const auto begin = png.size();
  png.append(type).append(data);
  append_big_endian(png, checksum(std::string_view(png).substr(begin)));
}

/// Returns all chunks up to IEND, complete and with right checksums.
std::vector<Chunk> chunks_of(std::string_view png, const std::string& path) {
  constexpr size_t frame = 12;  // length, type and checksum around the data
  if (!is_png(png)) refuse(path, "is no PNG image");
  std::vector<Chunk> chunks;
  for (size_t offset = signature.size(); chunks.empty() || chunks.back().type != "IEND";) {
    const size_t left = png.size() - offset;
    if (left < frame) refuse(path, "is a truncated PNG: its end (IEND) is missing");
    const size_t length = big_endian(png, offset);
    const auto type = png.substr(offset + 4, 4);
    if (length > left - frame) {
      refuse(path, fmt::format("is a truncated PNG: {} bytes of its '{}' chunk are missing", length - (left - frame), shortened(type)));
    }
    if (checksum(png.substr(offset + 4, length + 4)) != big_endian(png, offset + 8 + length)) {
      refuse(path, fmt::format("is a damaged PNG: the checksum of its '{}' chunk at byte {} is wrong", shortened(type), offset));
    }
    chunks.push_back({type, png.substr(offset + 8, length)});
    offset += frame + length;
  }
  if (chunks[0].type != "IHDR" || chunks[0].data.size() != 13) refuse(path, "is a damaged PNG: it does not begin with its header (IHDR)");
  return chunks;
}

/// Returns the UTF-8 of a text of tEXt or zTXt, which are Latin-1.
std::string utf8_of_latin1(std::string_view text) {
  std::string utf8;
  for (const char c : text) append_utf8(utf8, static_cast<uint8_t>(c));
  return utf8;
}

/// Returns a compressed text, and takes its size from the `room` that is left for the texts of the file.
std::string inflated(std::string_view data, size_t& room, const std::string& path) {
  std::string text;
  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) refuse(path, "zlib cannot start");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  int status = Z_OK;
  while (status == Z_OK && text.size() <= room) {
    constexpr size_t step = size_t{1} << 16;
    text.append(step, '\0');
    stream.next_out = reinterpret_cast<Bytef*>(text.data() + text.size() - step);
    stream.avail_out = step;
    status = ::inflate(&stream, Z_NO_FLUSH);
  }
  text.erase(text.size() - stream.avail_out);
  inflateEnd(&stream);
  if (status == Z_OK) refuse(path, fmt::format("has compressed texts of more than {} bytes", max_text));
  if (status != Z_STREAM_END) refuse(path, "is a damaged PNG: a compressed text in it cannot be read");
  room -= std::min(room, text.size());
  return text;
}

/// Takes the bytes up to the next zero byte, and that one.
std::string_view take_field(std::string_view& data, const std::string& path) {
  const auto end = data.find('\0');
  if (end == std::string_view::npos) refuse(path, "is a damaged PNG: a text in it has no end of its key");
  const auto field = data.substr(0, end);
  data.remove_prefix(end + 1);
  return field;
}

/// Returns the text of iTXt: keyword, compressed?, method, language, translated keyword, text (UTF-8).
std::string international_text(std::string_view data, size_t& room, const std::string& path) {
  if (data.size() < 2) refuse(path, "is a damaged PNG: a text in it is cut short");
  const bool compressed = data[0] != 0;
  data.remove_prefix(2);
  take_field(data, path);
  take_field(data, path);
  return compressed ? inflated(data, room, path) : std::string(data);
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

/// Returns the Exif data of a text chunk as ImageMagick writes them: their name, their size and hexadecimal digits, in lines; "" if it
/// holds something else.
std::string exif_of_text(std::string_view type, std::string_view data, const std::string& path) {
  const bool compressed = type == "zTXt";
  if ((!compressed && type != "tEXt") || data.empty()) return "";
  const std::string_view key = data.substr(0, std::min(data.find('\0'), data.size() - 1));
  if (key != "Raw profile type exif" && key != "Raw profile type APP1") return "";
  take_field(data, path);
  size_t room = max_text;
  const std::string text = compressed ? inflated(data.substr(std::min<size_t>(1, data.size())), room, path) : std::string(data);
  size_t at = 0;
  for (int line = 0; line < 3 && at < text.size(); ++line) at = std::min(text.find('\n', at), text.size() - 1) + 1;
  std::string digits = text.substr(at), exif;
  std::erase_if(digits, [](char c) { return c == '\n' || c == ' '; });
  for (const char* next = digits.data(); next + 2 <= digits.data() + digits.size(); next += 2) {
    uint8_t byte = 0;
    if (std::from_chars(next, next + 2, byte, 16).ptr != next + 2) return "";
    exif += static_cast<char>(byte);
  }
  return exif;
}

/// Returns the XMP packet of a text chunk; "" if it holds something else.
std::string xmp_of_text(std::string_view type, std::string_view data, const std::string& path) {
  if (type != "iTXt" || !data.starts_with(std::string_view("XML:com.adobe.xmp\0", 18))) return "";
  take_field(data, path);
  size_t room = max_text;
  return international_text(data, room, path);
}

void check_text(std::string_view key, std::string_view value, const std::string& path) {
  const bool valid = !key.empty() && key.size() <= 79 && is_ascii(key) && key.front() != ' ' && key.back() != ' ' &&
                     std::all_of(key.begin(), key.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  if (!valid) refuse(path, fmt::format("cannot be written: '{}' is no key for a PNG text (1 to 79 ASCII characters)", key));
  if (value.find('\0') != std::string_view::npos) refuse(path, fmt::format("cannot be written: the text '{}' holds a zero byte", key));
}

void append_text(std::string& png, const PngText& text, const std::string& path) {
  for (const auto& [key, value] : text) {
    check_text(key, value, path);
    // tEXt is Latin-1, which agrees with UTF-8 on ASCII alone; iTXt: not compressed, no language, no translation.
    const bool latin = is_ascii(value);
    auto data = key;
    data.append(latin ? 1 : 5, '\0').append(value);
    append_chunk(png, latin ? "tEXt" : "iTXt", data);
  }
}

}  // namespace

bool is_png(std::string_view bytes) { return bytes.starts_with(signature); }

PngHeader read_png_header(std::string_view png, const std::string& path) {
  const std::vector<Chunk> chunks = chunks_of(png, path);
  const std::string_view start = chunks[0].data;
  PngHeader header{big_endian(start, 4), big_endian(start, 0), {}, {}, {}};
  const auto depth = static_cast<uint8_t>(start[8]), colour = static_cast<uint8_t>(start[9]);
  constexpr uint8_t grey = 0;
  for (const auto& [type, data] : chunks) {
    if (type == "eXIf" && header.exif.empty()) header.exif = data;
    if (header.exif.empty()) header.exif = exif_of_text(type, data, path);
    if (header.xmp.empty()) header.xmp = xmp_of_text(type, data, path);
    if (type != "tRNS" || colour != grey || data.size() != 2 || depth == 0 || depth > 16) continue;
    const unsigned most = (1u << depth) - 1, level = (static_cast<uint8_t>(data[0]) << 8 | static_cast<uint8_t>(data[1])) & most;
    header.transparent_grey = static_cast<uint16_t>(depth < 8 ? level * 255 / most : level);
  }
  return header;
}

PngText png_text(std::string_view png, const std::string& path) {
  PngText text;
  size_t room = max_text;
  for (const auto& [type, chunk] : chunks_of(png, path)) {
    if (type != "tEXt" && type != "zTXt" && type != "iTXt") continue;
    auto data = chunk;
    const auto key = utf8_of_latin1(take_field(data, path));
    if (type == "tEXt") text[key] = utf8_of_latin1(data);
    if (type == "zTXt") text[key] = utf8_of_latin1(inflated(data.substr(std::min<size_t>(1, data.size())), room, path));
    if (type == "iTXt") text[key] = international_text(data, room, path);
  }
  return text;
}

std::string with_text(std::string_view png, const PngText& text, const std::string& path) {
  std::string result(signature);
  bool text_is_due = true;
  for (const auto& [type, data] : chunks_of(png, path)) {
    if (type == "IDAT" && text_is_due) {
      append_text(result, text, path);
      text_is_due = false;
    }
    append_chunk(result, type, data);
  }
  return result;
}

std::string plain_png(int64_t height, int64_t width, std::string_view rgb) {
  const auto bytes = static_cast<size_t>(width) * 3;
  if (rgb.size() != static_cast<size_t>(height) * bytes) throw std::logic_error("the pixels of a PNG are not as many as its size says");
  std::string rows;
  for (size_t y = 0; y < static_cast<size_t>(height); ++y) rows.append(1, '\0').append(rgb.substr(y * bytes, bytes));  // 0: no filter
  uLongf size = compressBound(rows.size());
  std::string packed(size, '\0');
  if (compress2(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(rows.data()), rows.size(), 9) != Z_OK)
    throw std::runtime_error("zlib cannot compress");
  packed.resize(size);
  std::string header;
  append_big_endian(header, static_cast<uint32_t>(width));
  append_big_endian(header, static_cast<uint32_t>(height));
  header.append({8, 2, 0, 0, 0});  // 8 bits, RGB, deflate, the only set of filters, not interlaced
  std::string png(signature);
  append_chunk(png, "IHDR", header);
  append_chunk(png, "IDAT", packed);
  append_chunk(png, "IEND", "");
  return png;
}

std::string animation(const std::vector<std::string>& pngs, int64_t delay_ms) {
  if (pngs.empty()) throw std::logic_error("an animation needs at least one frame");
  if (delay_ms < 0 || delay_ms > 65535) throw std::logic_error(fmt::format("a delay of {} ms is outside [0, 65535]", delay_ms));
  std::string result(signature);
  const auto header = chunks_of(pngs[0], "frame 0")[0].data;
  append_chunk(result, "IHDR", header);
  std::string control;
  append_big_endian(control, static_cast<uint32_t>(pngs.size()));
  append_big_endian(control, 0);  // for ever
  append_chunk(result, "acTL", control);
  uint32_t sequence = 0;
  for (size_t frame = 0; frame < pngs.size(); ++frame) {
    const auto chunks = chunks_of(pngs[frame], fmt::format("frame {}", frame));
    if (chunks[0].data != header) throw std::logic_error(fmt::format("frame {} differs in size or channels from frame 0", frame));
    std::string frame_control;
    append_big_endian(frame_control, sequence++);
    frame_control.append(header.substr(0, 8));  // width and height
    frame_control.append(8, '\0');              // at the origin
    append_big_endian(frame_control, static_cast<uint32_t>(delay_ms), 2);
    append_big_endian(frame_control, 1000, 2);
    frame_control.append(2, '\0');  // leave the frame, replace all of it with the next
    append_chunk(result, "fcTL", frame_control);
    for (const auto& [type, data] : chunks) {
      if (type != "IDAT") continue;
      if (frame == 0) {  // the first frame is the image of programs that do not animate
        append_chunk(result, type, data);
        continue;
      }
      std::string numbered;
      append_big_endian(numbered, sequence++);
      append_chunk(result, "fdAT", numbered.append(data));
    }
  }
  append_chunk(result, "IEND", "");
  return result;
}

}  // namespace brume
