#include "brume/train/event_file.h"

#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "brume/files/atomic_file.h"
#include "brume/files/mapped_file.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

constexpr size_t head = 12, tail = 4;  ///< bytes of a record before and after its content

std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
    table[i] = c;
  }
  return table;
}

uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

template <class T>
std::string little_endian(T value) {
  std::string bytes;
  for (size_t i = 0; i < sizeof(T); ++i) bytes += char(value >> (8 * i) & 0xff);
  return bytes;
}

template <class T>
T from_little_endian(std::string_view bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= T(uint8_t(bytes[i])) << (8 * i);
  return value;
}

std::optional<uint64_t> take_varint(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
    const uint8_t byte = uint8_t(bytes.front());
    bytes.remove_prefix(1);
    value |= uint64_t(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  return {};
}

/// Returns the step of an event, its field 2, which is 0 if absent.
int64_t step_of(std::string_view event) {
  while (!event.empty()) {
    const auto key = take_varint(event);
    if (!key) return 0;
    uint64_t skip = 0;
    if ((*key & 7) == 0) {
      const auto value = take_varint(event);
      if (!value) return 0;
      if (*key >> 3 == 2) return int64_t(*value);
    } else if ((*key & 7) == 2) {
      skip = take_varint(event).value_or(event.size());
    } else {
      skip = (*key & 7) == 1 ? 8 : 4;
    }
    if (skip > event.size()) return 0;
    event.remove_prefix(size_t(skip));
  }
  return 0;
}

/// Returns the content of the record that `file` begins with; nothing if it is cut short or damaged.
std::optional<std::string_view> content(std::string_view file) {
  if (file.size() < head + tail || masked_crc(file.substr(0, 8)) != from_little_endian<uint32_t>(file.substr(8, 4))) return {};
  const uint64_t size = from_little_endian<uint64_t>(file.substr(0, 8));
  if (size > file.size() - head - tail) return {};
  const std::string_view bytes = file.substr(head, size_t(size));
  if (masked_crc(bytes) != from_little_endian<uint32_t>(file.substr(head + bytes.size(), tail))) return {};
  return bytes;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = crc_table();
  uint32_t c = ~0u;
  for (const char byte : bytes) c = table[(c ^ uint8_t(byte)) & 0xff] ^ c >> 8;
  return ~c;
}

std::string event_record(std::string_view bytes) {
  const std::string size = little_endian(uint64_t(bytes.size()));
  return size + little_endian(masked_crc(size)) + std::string(bytes) + little_endian(masked_crc(bytes));
}

void Message::varint(uint64_t value) {
  for (; value >= 0x80; value >>= 7) text_ += char(value | 0x80);
  text_ += char(value);
}

Message& Message::number(int field, uint64_t value) {
  key(field, 0);
  varint(value);
  return *this;
}

Message& Message::real(int field, double value) {
  key(field, 1);
  text_ += little_endian(std::bit_cast<uint64_t>(value));
  return *this;
}

Message& Message::single(int field, float value) {
  key(field, 5);
  text_ += little_endian(std::bit_cast<uint32_t>(value));
  return *this;
}

Message& Message::bytes(int field, std::string_view value) {
  key(field, 2);
  varint(value.size());
  text_ += value;
  return *this;
}

void trim_events(const fs::path& file, int64_t step) {
  if (!fs::exists(file) || fs::file_size(file) == 0) return;
  std::string kept;
  {
    const auto mapped = MappedFile::open(file.string());
    std::string_view rest = mapped->bytes();
    while (const auto event = content(rest)) {
      const size_t size = head + event->size() + tail;
      if (step_of(*event) <= step) kept += rest.substr(0, size);
      rest.remove_prefix(size);
    }
  }
  write_file(file.string(), kept);
}

}  // namespace brume
