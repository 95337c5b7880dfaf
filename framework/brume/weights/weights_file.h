#pragma once
// Weights from any file brume reads, distinguished by their first bytes and never by its extension.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "brume/weights/tensors.h"

namespace brume {

/// Returns the tensors of a safetensors or PyTorch file, as views of the mapped file. `metadata` receives the safetensors metadata, or
/// the text and numbers that stand with the state dict ("epoch" -> "3"), and under "state_dict" which of several it is. Throws
/// ConfigError.
NamedTensors load_tensors(const std::string& path, std::map<std::string, std::string>* metadata = nullptr);

/// What is in a file of weights or in a PNG image.
struct Listing {
  /// One tensor; dtypes as safetensors files call them, so that what cannot be computed with is listed all the same.
  struct Row {
    std::string name;
    std::string dtype;
    std::vector<int64_t> shape;
    uint64_t bytes = 0;
    uint64_t parameters() const;
  };
  std::string path;
  std::string format;                           ///< for people: "safetensors"
  bool image = false;                           ///< which holds no tensors
  std::map<std::string, std::string> metadata;  ///< as load_tensors gives it, or the text of an image
  std::vector<Row> rows;
  NamedTensors tensors;  ///< the same as load_tensors gives them; none if a dtype is not computed with
};
Listing list_file(const std::string& path);

}  // namespace brume
