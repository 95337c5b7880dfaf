// MappedFile over the input of the fuzzer: memory of exactly its size, as AddressSanitizer can guard it.
#include "brume/files/mapped_file.h"

#include <ATen/ops/sum.h>

#include <cstdlib>
#include <cstring>

#include "input.h"

namespace brume {

std::string_view fuzz::input;

void fuzz::touch(const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors)
    if (size_t(tensor.numel()) <= input.size() + 1) at::sum(tensor);
}

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  const size_t size = fuzz::input.size();
  // One byte at least: malloc(0) may be null. The mapped files of the program begin at a page, so at a multiple of any element size.
  auto* data = static_cast<uint8_t*>(std::malloc(size == 0 ? 1 : size));
  std::memcpy(data, fuzz::input.data(), size);
  return std::shared_ptr<const MappedFile>(new MappedFile(path, data, size));
}

MappedFile::~MappedFile() { std::free(data_); }

}  // namespace brume
