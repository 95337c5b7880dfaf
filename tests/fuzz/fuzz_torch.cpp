// A PyTorch file: a zip archive, or the legacy kind.
#include "input.h"
#include "io/torch_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return brume::fuzz::try_to(data, size, [] { brume::fuzz::touch(brume::io::state_dict(brume::io::load_torch_file("input"))); });
}
