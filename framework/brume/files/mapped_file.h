#pragma once
// A file seen as memory, so that weights are used in place on the disk and loading copies nothing.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace brume {

/// A whole regular file, mapped privately: pages are read when touched, and writing to them (an in-place operation on a tensor
/// that views the file) changes a private copy, never the file. Replacing the file by rename, as AtomicFile does, leaves an
/// existing mapping as it was; cutting it short in place would end the process at the next read, as with any mapped file.
class MappedFile final {
 public:
  /// Throws ConfigError if the file is missing, unreadable or not a regular file.
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  size_t size() const { return size_; }
  const uint8_t* data() const { return data_; }
  /// Returns the place of a byte, not const because tensors want it so. A view of the file keeps it alive by holding its shared_ptr.
  void* at(size_t offset) const { return data_ + offset; }
  std::string_view bytes() const { return {reinterpret_cast<const char*>(data_), size_}; }
  std::string_view bytes(size_t offset, size_t count) const { return bytes().substr(offset, count); }

 private:
  MappedFile(std::string path, uint8_t* data, size_t size) : path_(std::move(path)), data_(data), size_(size) {}

  std::string path_;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace brume
