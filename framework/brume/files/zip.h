#pragma once
// Reads zip archives (PKWARE APPNOTE 6.3): stored and deflated entries, zip64, no encryption, one disk.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace brume {

class MappedFile;

struct ZipEntry {
  std::string name;
  uint64_t header = 0;      ///< offset of its local header in the file
  uint64_t compressed = 0;  ///< bytes in the file
  uint64_t size = 0;        ///< bytes once decompressed
  uint32_t crc = 0;
  uint16_t method = 0;  ///< 0 = stored, 8 = deflated
  size_t data = 0;      ///< offset of its bytes in the file
  bool stored() const { return method == 0; }
};

/// The directory of an archive, checked whole when opened: every entry lies within the file and no two overlap.
class ZipArchive final {
 public:
  explicit ZipArchive(std::shared_ptr<const MappedFile> file);  ///< throws ConfigError

  const std::shared_ptr<const MappedFile>& file() const { return file_; }
  const std::vector<ZipEntry>& entries() const { return entries_; }
  const ZipEntry* find(std::string_view name) const;  ///< nullptr if absent
  /// Throws ConfigError if the bytes of a stored entry are not those its checksum was made of. Reads them all.
  void check(const ZipEntry& entry) const;
  /// Returns the content of a deflated entry, checked against its size and checksum.
  std::vector<uint8_t> inflate(const ZipEntry& entry) const;
  /// Returns the content of any entry, checked and copied.
  std::string read(const ZipEntry& entry) const;

 private:
  void read_directory(uint64_t offset, uint64_t size, uint64_t count);
  void locate_data();

  std::shared_ptr<const MappedFile> file_;
  std::vector<ZipEntry> entries_;  ///< in the order of the directory
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace brume
