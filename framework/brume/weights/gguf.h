#pragma once
// GGUF, the files of ggml's programs (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): a header with typed metadata and the
// names, shapes and types of the tensors, then their data. Whole floats are views of the mapped file; quantised tensors are converted to
// float32.
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "brume/weights/tensors.h"

namespace brume {

class MappedFile;

bool is_gguf(std::string_view bytes);

/// What the header says of one tensor.
struct GgufEntry {
  std::string name;
  uint32_t type = 0;           ///< ggml's number
  std::vector<int64_t> shape;  ///< the slowest dimension first, as everywhere else; that of "comfy.gguf.orig_shape.NAME" if it is there
  uint64_t offset = 0;         ///< in the file
  uint64_t bytes = 0;
};

class GgufFile final {
 public:
  /// Throws ConfigError saying what is wrong with the file.
  explicit GgufFile(std::shared_ptr<const MappedFile> file);
  const std::vector<GgufEntry>& entries() const { return entries_; }
  /// Returns text, numbers and truth values; arrays are left out.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Throws ConfigError naming a tensor of a type that is not read (gguf_readable()).
  NamedTensors tensors() const;

 private:
  std::shared_ptr<const MappedFile> file_;
  std::vector<GgufEntry> entries_;
  std::map<std::string, std::string> metadata_;
};

/// Returns ggml's name of a type, "Q4_K", or its number.
std::string gguf_type_name(uint32_t type);

}  // namespace brume
