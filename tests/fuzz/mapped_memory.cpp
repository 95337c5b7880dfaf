// MappedFile over the input of the fuzzer: memory of exactly its size, as AddressSanitizer can guard it.
#include "brume/files/mapped_file.h"

#include <ATen/ops/sum.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "input.h"

namespace brume {

std::string_view fuzz::input;

void fuzz::touch(const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors)
    if (size_t(tensor.numel()) <= input.size() + 1) at::sum(tensor);
}

std::string fuzz::as_file(std::string_view ending, std::string_view content, std::string_view name) {
  namespace fs = std::filesystem;
  struct Folder {
    fs::path path =
        (fs::is_directory("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path()) / ("brume_fuzz_" + std::to_string(getpid()));
    Folder() { fs::create_directories(path); }
    ~Folder() { fs::remove_all(path); }
  };
  static const Folder folder;
  const fs::path file = folder.path / (std::string(name) + "." + std::string(ending));
  std::ofstream(file, std::ios::binary) << content;
  return file.string();
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
