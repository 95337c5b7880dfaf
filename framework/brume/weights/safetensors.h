#pragma once
// The safetensors format (https://github.com/huggingface/safetensors): 8 bytes of header length, a JSON header
// {"name": {"dtype", "shape", "data_offsets"}, ..., "__metadata__": {string: string}}, then the tensors without a gap.
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "brume/weights/tensors.h"

namespace brume {

class MappedFile;

/// What the header says of one tensor. Offsets count from the end of the header.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;  ///< as written: "F32", "BF16", "F8_E4M3"
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
  uint64_t bytes() const { return end - begin; }
};

/// A safetensors file, checked whole when opened; its tensors are views of the mapped file, which they keep alive.
/// Reading is const and safe from several threads.
class SafetensorsFile final {
 public:
  /// Throws ConfigError saying what is wrong with the file.
  explicit SafetensorsFile(const std::string& path);
  explicit SafetensorsFile(std::shared_ptr<const MappedFile> file);

  const std::string& path() const;
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  ///< in the order of the header
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  const SafetensorsEntry* find(std::string_view name) const;  ///< nullptr if absent

  /// Throws ConfigError if there is no such tensor, or if its dtype is not computed with. Floats of 8 bits become bfloat16, without scales.
  at::Tensor tensor(std::string_view name) const;
  at::Tensor tensor(const SafetensorsEntry& entry) const;
  /// Returns all of them, in the order of the header; those of 8 bits as float8.h says.
  NamedTensors tensors() const;

 private:
  std::shared_ptr<const MappedFile> file_;
  std::vector<SafetensorsEntry> entries_;
  std::unordered_map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
  size_t data_begin_ = 0;
};

/// Writes `tensors` (any device, any strides, floating, integer or bool) and `metadata` to `path`, atomically. The header keeps
/// the order given; the data is laid out by element size, so that every tensor is aligned and can be viewed without a copy.
void write_safetensors(const std::string& path, const NamedTensors& tensors, const std::map<std::string, std::string>& metadata = {});

}  // namespace brume
