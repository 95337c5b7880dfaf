#pragma once
// Weights from any file brume reads, told apart by what the file begins with and never by its extension.
#include <map>
#include <string>

#include "io/tensors.h"

namespace brume::io {

/// The tensors of a safetensors or PyTorch file, as views of the mapped file. `metadata` receives the safetensors metadata, or
/// the text and numbers that stand beside the state dict ("epoch" -> "3"). Throws ConfigError.
NamedTensors load_tensors(const std::string& path, std::map<std::string, std::string>* metadata = nullptr);

/// A listing for people: format, metadata, one line per tensor, totals. Also describes PNG files with their text.
std::string inspect(const std::string& path);

}  // namespace brume::io
