// A safetensors file.
#include "brume/weights/safetensors.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return brume::fuzz::try_to(data, size, [] {
    const brume::SafetensorsFile file("input");
    brume::fuzz::touch(file.tensors());
  });
}
