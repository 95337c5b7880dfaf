#pragma once
// What the fuzz targets share: the input as a file, and the one exception that a reader may throw.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "brume/config/errors.h"
#include "brume/weights/tensors.h"

namespace brume::fuzz {

/// Where MappedFile::open finds the input, whatever the path (mapped_memory.cpp).
extern std::string_view input;

/// Writes the content, usually the input, into a file NAME.ENDING in a folder of this process, and returns its path: for readers of files
/// that are not mapped.
std::string as_file(std::string_view ending, std::string_view content = input, std::string_view name = "input");

/// Runs `read` on the input: it returns or throws ConfigError; anything else ends the process, which is what the fuzzer reports.
template <class Read>
int try_to(const uint8_t* data, size_t size, const Read& read) {
  input = {reinterpret_cast<const char*>(data), size};
  try {
    read();
  } catch (const ConfigError&) {
  }
  return 0;
}

/// Reads every element of every tensor that is not made larger than the input by its strides.
void touch(const NamedTensors& tensors);

}  // namespace brume::fuzz
