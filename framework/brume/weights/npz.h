#pragma once
// Files of numpy.savez: a zip archive of NAME.npy members, stored or deflated. The format of .npy: NumPy Enhancement Proposal 1.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "brume/weights/tensors.h"

namespace brume {

class ZipArchive;

/// An .npz file, opened; arrays are read when asked for. Safe to use from several threads.
class NpzFile final {
 public:
  /// Throws ConfigError if the file is missing or no archive of arrays.
  explicit NpzFile(const std::string& path);
  ~NpzFile();
  const std::string& path() const { return path_; }
  /// Returns the names of the arrays, without ".npy", in the order of the file.
  std::vector<std::string> names() const;
  bool contains(std::string_view name) const;
  /// Returns an array in row-major order; of a stored member, a view of the mapped file. Types: bool, integers but unsigned ones above 8
  /// bits, floating point of 16, 32 and 64 bits, all little-endian. Throws ConfigError naming what is wrong: absent (with what is there),
  /// damaged, of another type (objects, text, big-endian).
  at::Tensor array(std::string_view name) const;

 private:
  std::string path_;
  std::unique_ptr<const ZipArchive> archive_;
};

/// Writes arrays (any device, any strides) to an uncompressed .npz, atomically.
void write_npz(const std::string& path, const NamedTensors& arrays);

}  // namespace brume
