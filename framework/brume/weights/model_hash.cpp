#include "brume/weights/model_hash.h"

#include <filesystem>
#include <string_view>

#include "brume/core/file_pages.h"
#include "brume/files/mapped_file.h"
#include "brume/files/sha256.h"

namespace brume {

std::string model_hash(const std::string& path, const NamedTensors& tensors) {
  if (std::filesystem::is_regular_file(path))
    return sha256(MappedFile::open(path)->bytes(), [](std::string_view part) { discard_file_pages(part.data(), part.size()); });
  std::string all;
  for (const NamedTensor& t : tensors) {
    const at::Tensor dense = t.tensor.contiguous();
    all += t.name + " " + sha256({static_cast<const char*>(dense.data_ptr()), dense.nbytes()}) + "\n";
  }
  return sha256(all);
}

}  // namespace brume
