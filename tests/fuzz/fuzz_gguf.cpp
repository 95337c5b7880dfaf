// A GGUF file.
#include "brume/files/mapped_file.h"
#include "brume/weights/gguf.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return brume::fuzz::try_to(data, size, [] {
    const brume::GgufFile file(brume::MappedFile::open("input"));
    brume::fuzz::touch(file.tensors());
  });
}
