#include "brume/files/zip.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "brume/config/counted.h"
#include "brume/files/mapped_file.h"
#include "brume/files/refuse.h"

namespace brume {
namespace {

constexpr uint32_t local_signature = 0x04034b50;
constexpr uint32_t directory_signature = 0x02014b50;
constexpr uint32_t end_signature = 0x06054b50;
constexpr uint32_t end64_signature = 0x06064b50;
constexpr uint32_t locator64_signature = 0x07064b50;
constexpr uint64_t local_size = 30, directory_size = 46, end_size = 22, end64_size = 56, locator64_size = 20;
constexpr uint64_t max_comment = 65535;
constexpr uint64_t max_deflate_ratio = 1032;  // a stored match of 258 bytes takes at least 2 bits

/// Reads a little-endian field of a record that is known to lie within the file.
template <class T>
T field(const MappedFile& file, uint64_t offset) {
  T value;
  std::memcpy(&value, file.data() + offset, sizeof(T));
  return value;
}

bool fits(const MappedFile& file, uint64_t offset, uint64_t size) { return offset <= file.size() && size <= file.size() - offset; }

[[noreturn]] void damaged(const MappedFile& file, const std::string& reason) { refuse(file.path(), "is a damaged zip archive: " + reason); }

/// Returns the end record, sought from the back: a comment of unknown length may follow it.
uint64_t find_end(const MappedFile& file) {
  if (file.size() < end_size) damaged(file, fmt::format("it is truncated: {} bytes, too short for an archive", file.size()));
  const uint64_t last = file.size() - end_size;
  const uint64_t first = last > max_comment ? last - max_comment : 0;
  for (uint64_t offset = last + 1; offset-- > first;) {
    if (field<uint32_t>(file, offset) == end_signature) return offset;
  }
  damaged(file, "it is truncated: the directory at its end is missing");
}

struct Directory {
  uint64_t offset, size, count;
};

Directory find_directory(const MappedFile& file) {
  const uint64_t end = find_end(file);
  Directory directory{field<uint32_t>(file, end + 16), field<uint32_t>(file, end + 12), field<uint16_t>(file, end + 10)};
  if (end < locator64_size || field<uint32_t>(file, end - locator64_size) != locator64_signature) return directory;
  const auto end64 = field<uint64_t>(file, end - locator64_size + 8);
  if (!fits(file, end64, end64_size) || field<uint32_t>(file, end64) != end64_signature) damaged(file, "its zip64 record is missing");
  return {field<uint64_t>(file, end64 + 48), field<uint64_t>(file, end64 + 40), field<uint64_t>(file, end64 + 32)};
}

/// Replaces the 32-bit fields that read "see the zip64 extra field" by what that field says, which comes in a fixed order.
void read_zip64(const MappedFile& file, uint64_t extra, uint64_t extra_size, ZipEntry& entry) {
  constexpr uint16_t zip64_id = 1;
  const uint64_t end = extra + extra_size;
  while (end - extra >= 4) {
    const auto id = field<uint16_t>(file, extra);
    const uint64_t size = field<uint16_t>(file, extra + 2);
    extra += 4;
    if (size > end - extra) return;
    if (id == zip64_id) {
      uint64_t next = extra;
      for (uint64_t* value : {&entry.size, &entry.compressed, &entry.header}) {
        if (*value != UINT32_MAX) continue;
        if (extra + size - next < 8) damaged(file, fmt::format("the zip64 sizes of '{}' are cut short", entry.name));
        *value = field<uint64_t>(file, next);
        next += 8;
      }
    }
    extra += size;
  }
}

}  // namespace

ZipArchive::ZipArchive(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {
  const auto directory = find_directory(*file_);
  if (!fits(*file_, directory.offset, directory.size)) damaged(*file_, "its directory lies outside the file");
  read_directory(directory.offset, directory.size, directory.count);
  locate_data();
}

void ZipArchive::read_directory(uint64_t offset, uint64_t size, uint64_t count) {
  const uint64_t end = offset + size;
  for (uint64_t i = 0; i < count; ++i) {
    if (end - offset < directory_size || field<uint32_t>(*file_, offset) != directory_signature) {
      damaged(*file_, fmt::format("its directory ends after {} of {}", i, counted(count, "entry")));
    }
    const uint64_t name_size = field<uint16_t>(*file_, offset + 28), extra_size = field<uint16_t>(*file_, offset + 30);
    const uint64_t comment_size = field<uint16_t>(*file_, offset + 32);
    const uint64_t record = directory_size + name_size + extra_size + comment_size;
    if (record > end - offset) damaged(*file_, fmt::format("its directory ends within entry {}", i + 1));
    ZipEntry entry{std::string(file_->bytes(offset + directory_size, name_size)),
                   field<uint32_t>(*file_, offset + 42),
                   field<uint32_t>(*file_, offset + 20),
                   field<uint32_t>(*file_, offset + 24),
                   field<uint32_t>(*file_, offset + 16),
                   field<uint16_t>(*file_, offset + 10),
                   0};
    read_zip64(*file_, offset + directory_size + name_size, extra_size, entry);
    const auto flags = field<uint16_t>(*file_, offset + 8);
    if ((flags & 1) != 0) damaged(*file_, fmt::format("'{}' is encrypted", entry.name));
    if (entry.method != 0 && entry.method != 8) {
      damaged(*file_, fmt::format("'{}' uses compression method {} (readable: 0 stored, 8 deflated)", entry.name, entry.method));
    }
    if (!index_.emplace(entry.name, entries_.size()).second) damaged(*file_, fmt::format("'{}' is there twice", entry.name));
    entries_.push_back(std::move(entry));
    offset += record;
  }
}

/// The directory points at local headers, whose own name and padding give the beginning of the bytes.
void ZipArchive::locate_data() {
  for (auto& entry : entries_) {
    if (!fits(*file_, entry.header, local_size) || field<uint32_t>(*file_, entry.header) != local_signature) {
      damaged(*file_, fmt::format("'{}' is not where the directory says", entry.name));
    }
    const uint64_t skip = local_size + field<uint16_t>(*file_, entry.header + 26) + field<uint16_t>(*file_, entry.header + 28);
    if (!fits(*file_, entry.header, skip) || !fits(*file_, entry.header + skip, entry.compressed)) {
      damaged(*file_, fmt::format("'{}' reaches beyond the end of the file", entry.name));
    }
    entry.data = entry.header + skip;
    if (entry.stored() && entry.size != entry.compressed) damaged(*file_, fmt::format("'{}' has two sizes", entry.name));
    if (entry.size / max_deflate_ratio > entry.compressed) {
      damaged(*file_, fmt::format("'{}' would have {} bytes, more than {} bytes can hold", entry.name, entry.size, entry.compressed));
    }
  }
  // Overlapping entries are how a small archive unpacks into an enormous one.
  std::vector<const ZipEntry*> by_offset;
  for (const auto& entry : entries_) by_offset.push_back(&entry);
  std::sort(by_offset.begin(), by_offset.end(), [](const auto* a, const auto* b) { return a->header < b->header; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    if (by_offset[i - 1]->data + by_offset[i - 1]->compressed > by_offset[i]->header) {
      damaged(*file_, fmt::format("'{}' and '{}' overlap", by_offset[i - 1]->name, by_offset[i]->name));
    }
  }
}

const ZipEntry* ZipArchive::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &entries_[found->second];
}

void ZipArchive::check(const ZipEntry& entry) const {
  if (crc32_z(0, file_->data() + entry.data, entry.size) != entry.crc)
    damaged(*file_, fmt::format("the checksum of '{}' is wrong", entry.name));
}

std::vector<uint8_t> ZipArchive::inflate(const ZipEntry& entry) const {
  std::vector<uint8_t> content(entry.size);
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) refuse(file_->path(), "zlib cannot start");  // negative: no zlib header
  const uint8_t* input = file_->data() + entry.data;
  uint64_t input_left = entry.compressed, output_left = entry.size;
  int status = Z_OK;
  stream.next_out = content.data();
  uint8_t nothing = 0;
  if (content.empty()) stream.next_out = &nothing;
  do {  // zlib counts in 32 bits
    constexpr uint64_t step = uint64_t{1} << 30;
    if (stream.avail_in == 0) {
      stream.next_in = const_cast<Bytef*>(input);
      stream.avail_in = static_cast<uInt>(std::min(input_left, step));
      input += stream.avail_in;
      input_left -= stream.avail_in;
    }
    if (stream.avail_out == 0) {
      stream.avail_out = static_cast<uInt>(std::min(output_left, step));
      output_left -= stream.avail_out;
    }
    status = ::inflate(&stream, Z_NO_FLUSH);
  } while (status == Z_OK);
  const bool complete = status == Z_STREAM_END && output_left == 0 && stream.avail_out == 0;
  inflateEnd(&stream);
  if (!complete) damaged(*file_, fmt::format("'{}' does not decompress to its {} bytes", entry.name, entry.size));
  if (crc32_z(0, content.data(), content.size()) != entry.crc) damaged(*file_, fmt::format("the checksum of '{}' is wrong", entry.name));
  return content;
}

std::string ZipArchive::read(const ZipEntry& entry) const {
  if (entry.stored()) {
    check(entry);
    return std::string(file_->bytes(entry.data, entry.size));
  }
  const auto content = inflate(entry);
  return std::string(content.begin(), content.end());
}

}  // namespace brume
