// A safetensors file.
#include "input.h"
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return brume::fuzz::try_to(data, size, [] {
    const brume::io::SafetensorsFile file("input");
    brume::fuzz::touch(file.tensors());
  });
}
