#pragma once
// The quantised types of ggml: blocks of weights that share scales.
#include <cstdint>
#include <string>
#include <string_view>

namespace brume {

/// A type of ggml that is read.
struct GgufType {
  uint32_t number;
  std::string_view name;
  uint64_t weights;                                      ///< in a block
  uint64_t bytes;                                        ///< of a block
  void (*decode)(const uint8_t* block, float* weights);  ///< null: whole floats, one per block
};

/// Returns nullptr if the type is not read.
const GgufType* gguf_type(uint32_t number);
/// Returns the names of the types that are read: "F32, F16, …".
std::string gguf_readable();

}  // namespace brume
