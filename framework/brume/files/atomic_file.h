#pragma once
// Files that are either whole or absent: written to a temporary name in the same directory, synced, and renamed.
// The temporary files of a killed process are removed when another process first writes into that directory.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace brume {

/// A file being written. Until commit() returns, the file called `path` is as it was before; without commit() it stays so.
/// Every failure is a ConfigError that names the file, what failed, and the state of the previous file.
class AtomicFile final {
 public:
  /// Creates the temporary file. `bytes_needed`: the size that the file will have, if known; room for it is reserved at once, so that a
  /// full disk is noticed before anything is written. A symbolic link is followed: what it points to is replaced.
  explicit AtomicFile(std::string path, uint64_t bytes_needed = 0);
  ~AtomicFile();  ///< removes the temporary file
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view bytes) { write(bytes.data(), bytes.size()); }
  uint64_t written() const { return written_; }
  void commit();

 private:
  [[noreturn]] void fail(int error, const char* doing);
  std::string no_room_message(int error) const;
  void refuse_beyond_limit(uint64_t size);
  void open_temporary();
  void sync_directory();
  void discard() noexcept;

  std::string path_;       ///< as the caller named it, for messages
  std::string target_;     ///< the end of symbolic links
  std::string directory_;  ///< of the target
  std::string temporary_;  ///< empty once renamed or removed
  uint64_t needed_ = 0;
  uint64_t written_ = 0;
  int mode_ = 0666;  ///< permissions of the file: those of the one it replaces
  int descriptor_ = -1;
  bool replaces_ = false;  ///< whether there is a previous file
};

/// Removes the temporary files of killed processes from a directory. Files that a living process writes are locked, and stay.
void remove_stale_files(const std::string& directory);

/// Writes a small file in one go, atomically.
void write_file(const std::string& path, std::string_view content);

}  // namespace brume
