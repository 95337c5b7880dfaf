// An .npz file, all of whose arrays are read.
#include "brume/weights/npz.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return brume::fuzz::try_to(data, size, [] {
    const brume::NpzFile file("input");
    brume::NamedTensors arrays;
    for (const std::string& name : file.names()) arrays.push_back({name, file.array(name)});
    brume::fuzz::touch(arrays);
  });
}
