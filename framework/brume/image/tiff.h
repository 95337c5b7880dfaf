#pragma once
// The first directory of a TIFF (TIFF 6.0, section 2). Exif data are a TIFF without pixels.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace brume {

bool is_tiff(std::string_view bytes);

/// The numbers of the first directory. What is cut short or no TIFF has an empty directory.
class TiffDirectory final {
 public:
  enum Tag : uint16_t {
    image_width = 256,
    image_length = 257,
    bits_per_sample = 258,
    compression = 259,
    photometric = 262,
    orientation_tag = 274,
    samples_per_pixel = 277,
    planar_configuration = 284,
    predictor = 317,
    tile_width = 322,
    target_printer = 337,
    extra_samples = 338,
    sample_format = 339,
  };
  /// Reads the first directory of a file. `bytes` must outlive it.
  explicit TiffDirectory(std::string_view bytes);

  /// Returns the first value of a tag, if it is a BYTE, SHORT or LONG.
  std::optional<uint32_t> value(Tag tag) const;
  /// Returns the orientation, 1 to 8; 1 if there is no valid one. 6 means that the stored image must be turned by 90 degrees clockwise.
  int orientation() const;
  /// Returns the bytes with another first value of a tag that the directory has.
  std::string with(Tag tag, uint32_t value) const;
  /// Returns the bytes with another number for a tag that the directory has.
  std::string renamed(Tag tag, Tag to) const;

 private:
  struct Entry {
    uint16_t tag;
    size_t entry;      ///< where it begins
    size_t at, width;  ///< of its first value, in bytes
  };
  uint32_t number(size_t at, size_t width) const;
  void write(std::string& bytes, size_t at, size_t width, uint32_t value) const;
  const Entry* find(Tag tag) const;

  std::string_view bytes_;
  bool little_ = true;
  std::vector<Entry> entries_;
};

/// Returns the orientation in Exif data, which may begin with "Exif\0\0", or, if they have none, that in an XMP packet (the property
/// tiff:Orientation, as attribute or element; XMP Specification, part 2), 1 to 8; 1 if neither has a valid one.
int orientation_of(std::string_view exif, std::string_view xmp);

}  // namespace brume
