// A PyTorch file: a zip archive, or the legacy kind.
#include "brume/weights/torch_file.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return brume::fuzz::try_to(data, size, [] { brume::fuzz::touch(brume::state_dict(brume::load_torch_file("input"))); });
}
