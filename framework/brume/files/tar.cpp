// A tar archive is a row of blocks of 512 bytes: a header, then its file's content filled up to whole blocks; two blocks of zeros end it.
#include "brume/files/tar.h"
#include "brume/config/number.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "brume/files/refuse.h"

namespace brume {
namespace {

constexpr size_t block = 512;

class Header {
 public:
  Header(std::string_view bytes, size_t at, const std::string& path) : bytes_(bytes), at_(at), path_(path) {}

  bool empty() const {
    return std::all_of(bytes_.begin(), bytes_.end(), [](char c) { return c == 0; });
  }
  char type() const { return bytes_[156]; }
  uint64_t size() const { return number(124, 12, "size"); }
  std::string name() const {
    const std::string prefix = bytes_.substr(257, 5) == "ustar" && bytes_[262] == 0 ? text(345, 155) : "";  // GNU has other things there
    return prefix.empty() ? text(0, 100) : prefix + "/" + text(0, 100);
  }
  /// Compares the sum of all bytes, the checksum's own taken for spaces.
  void check() const {
    uint64_t sum = 0;
    for (size_t i = 0; i < block; ++i) sum += i >= 148 && i < 156 ? uint64_t{' '} : static_cast<uint8_t>(bytes_[i]);
    if (sum != number(148, 8, "checksum")) refuse("is damaged: the header's checksum is wrong");
  }
  [[noreturn]] void refuse(const std::string& reason) const { brume::refuse(path_, fmt::format("{} (at byte {})", reason, at_)); }

 private:
  std::string text(size_t from, size_t length) const {
    const std::string_view field = bytes_.substr(from, length);
    return std::string(field.substr(0, field.find('\0')));
  }
  /// Reads octal digits, or after a first byte of 0x80 the number itself, most significant byte first (GNU).
  uint64_t number(size_t from, size_t length, const char* what) const {
    const std::string_view field = bytes_.substr(from, length);
    uint64_t value = 0;
    if (static_cast<uint8_t>(field[0]) == 0x80) {
      for (const char c : field.substr(1)) {
        if (value >> 55) refuse(fmt::format("is damaged: a {} beyond all measure", what));
        value = value << 8 | static_cast<uint8_t>(c);
      }
      return value;
    }
    bool any = false;
    for (const char c : field) {
      if (c >= '0' && c <= '7') {
        value = value * 8 + uint64_t(c - '0'), any = true;
      } else if (c == 0 || (c == ' ' && any)) {
        break;
      } else if (c != ' ') {
        refuse(fmt::format("is no tar archive, or damaged: the {} '{}' is no octal number", what, shortened(field)));
      }
    }
    return value;
  }

  std::string_view bytes_;
  size_t at_;
  const std::string& path_;
};

/// Returns "LENGTH KEY=VALUE\n", one after the other.
std::map<std::string, std::string> pax_records(std::string_view text, const Header& header) {
  std::map<std::string, std::string> records;
  while (!text.empty() && text[0] != 0) {
    std::string_view rest = text;
    const size_t length = take_number<size_t>(rest).value_or(0), digits = text.size() - rest.size();
    if (length > text.size() || length < digits + 3 || text[digits] != ' ' || text[length - 1] != '\n')
      header.refuse("is damaged: a pax record is malformed");
    const std::string_view record = text.substr(digits + 1, length - digits - 2);
    const size_t equals = record.find('=');
    if (equals == record.npos) header.refuse("is damaged: a pax record is malformed");
    records[std::string(record.substr(0, equals))] = record.substr(equals + 1);
    text.remove_prefix(length);
  }
  return records;
}

}  // namespace

std::vector<TarEntry> read_tar(std::string_view archive, const std::string& path) {
  std::vector<TarEntry> entries;
  std::optional<std::string> long_name;  // for the next file
  uint64_t long_size = 0;
  bool has_long_size = false;
  for (size_t at = 0; at < archive.size();) {
    if (archive.size() - at < block) refuse(path, fmt::format("is cut short: it ends inside the header at byte {}", at));
    const Header header(archive.substr(at, block), at, path);
    if (header.empty()) break;
    header.check();
    const bool described = header.type() == 'L' || header.type() == 'K' || header.type() == 'x' || header.type() == 'g';
    const uint64_t size = !described && has_long_size ? long_size : header.size();
    const size_t start = at + block;
    if (size > archive.size() - start)
      refuse(path, fmt::format("is cut short: '{}' has {} bytes, and {} are left", shortened(long_name.value_or(header.name()), 80), size,
                               archive.size() - start));
    const std::string_view content = archive.substr(start, size);
    if (header.type() == 'L') long_name = content.substr(0, content.find('\0'));
    if (header.type() == 'x') {
      const auto records = pax_records(content, header);
      if (const auto found = records.find("path"); found != records.end()) long_name = found->second;
      if (const auto found = records.find("size"); found != records.end()) {
        const auto value = parse_number<uint64_t>(found->second);
        if (!value) header.refuse("is damaged: a pax size is no number");
        long_size = *value, has_long_size = true;
      }
    }
    if (!described) {
      if (header.type() == '0' || header.type() == 0 || header.type() == '7')
        entries.push_back({long_name.value_or(header.name()), start, size});
      long_name.reset(), has_long_size = false;
    }
    at = start + std::min<size_t>((size + block - 1) / block * block, archive.size() - start);
  }
  return entries;
}

}  // namespace brume
