#include "brume/image/tiff.h"

#include <algorithm>

namespace brume {
namespace {

constexpr std::string_view little_endian("II*\0", 4), big_endian("MM\0*", 4);

/// Returns the bytes of one value of a type; 0 if the type is no unsigned integer.
size_t width_of(uint32_t type) { return type == 1 ? 1 : type == 3 ? 2 : type == 4 ? 4 : 0; }

}  // namespace

bool is_tiff(std::string_view bytes) { return bytes.starts_with(little_endian) || bytes.starts_with(big_endian); }

TiffDirectory::TiffDirectory(std::string_view bytes) : bytes_(bytes), little_(bytes.starts_with(little_endian)) {
  if (!is_tiff(bytes) || bytes.size() < 8) return;
  const size_t start = number(4, 4);
  if (start > bytes.size() || bytes.size() - start < 2) return;
  const size_t count = number(start, 2);
  constexpr size_t entry = 12;
  for (size_t i = 0; i < count && (i + 1) * entry + 2 <= bytes.size() - start; ++i) {
    const size_t at = start + 2 + i * entry, width = width_of(number(at + 2, 2));
    if (width == 0) continue;
    const uint64_t values = number(at + 4, 4);
    const size_t place = values * width <= 4 ? at + 8 : number(at + 8, 4);
    if (values == 0 || place > bytes.size() || bytes.size() - place < width) continue;
    entries_.push_back({static_cast<uint16_t>(number(at, 2)), at, place, width});
  }
}

uint32_t TiffDirectory::number(size_t at, size_t width) const {
  uint32_t value = 0;
  for (size_t i = 0; i < width; ++i) value = value << 8 | static_cast<uint8_t>(bytes_[little_ ? at + width - 1 - i : at + i]);
  return value;
}

const TiffDirectory::Entry* TiffDirectory::find(Tag tag) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.tag == tag; });
  return found == entries_.end() ? nullptr : &*found;
}

std::optional<uint32_t> TiffDirectory::value(Tag tag) const {
  const Entry* entry = find(tag);
  return entry ? std::optional(number(entry->at, entry->width)) : std::nullopt;
}

int TiffDirectory::orientation() const {
  const uint32_t stored = value(orientation_tag).value_or(1);
  return stored >= 1 && stored <= 8 ? static_cast<int>(stored) : 1;
}

std::string TiffDirectory::with(Tag tag, uint32_t value) const {
  std::string changed(bytes_);
  if (const Entry* entry = find(tag)) write(changed, entry->at, entry->width, value);
  return changed;
}

std::string TiffDirectory::renamed(Tag tag, Tag to) const {
  std::string changed(bytes_);
  if (const Entry* entry = find(tag)) write(changed, entry->entry, 2, to);
  return changed;
}

void TiffDirectory::write(std::string& bytes, size_t at, size_t width, uint32_t value) const {
  for (size_t i = 0; i < width; ++i) bytes[at + (little_ ? i : width - 1 - i)] = static_cast<char>(value >> (8 * i) & 0xff);
}

int orientation_of(std::string_view exif, std::string_view xmp) {
  constexpr std::string_view prefix("Exif\0\0", 6), property = "tiff:Orientation";
  if (exif.starts_with(prefix)) exif.remove_prefix(prefix.size());
  const TiffDirectory directory(exif);
  if (directory.value(TiffDirectory::orientation_tag)) return directory.orientation();
  const size_t at = xmp.find(property);
  if (at == xmp.npos) return 1;
  xmp.remove_prefix(at + property.size());
  const size_t digit = xmp.find_first_not_of(" \t\r\n=\"'>");
  return digit != xmp.npos && digit > 0 && xmp[digit] >= '1' && xmp[digit] <= '8' ? xmp[digit] - '0' : 1;
}

}  // namespace brume
