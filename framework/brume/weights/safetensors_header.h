#pragma once
// The JSON header of a safetensors file, read strictly.
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "brume/weights/safetensors.h"

namespace brume {

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
};

/// A dtype of the format: its size, and its counterpart in LibTorch (Undefined if it has none).
struct SafetensorsDtype {
  std::string_view name;
  uint64_t bits;
  at::ScalarType type;
};

/// Returns nullptr if it is unknown.
const SafetensorsDtype* safetensors_dtype(std::string_view name);
const SafetensorsDtype* safetensors_dtype(at::ScalarType type);

/// Parses `json`; throws ConfigError naming `path`. Offsets are not checked here.
SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& path);
/// Returns the header for tensors laid out as `entries` say, without padding.
std::string format_safetensors_header(const SafetensorsHeader& header, const std::string& path);

}  // namespace brume
