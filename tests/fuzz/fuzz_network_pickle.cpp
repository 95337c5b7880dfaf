// A .pkl of NVlabs' programs.
#include <map>

#include "brume/files/mapped_file.h"
#include "brume/weights/network_pickle.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return brume::fuzz::try_to(data, size, [] {
    std::map<std::string, std::string> metadata;
    brume::fuzz::touch(brume::load_network_pickle(brume::MappedFile::open("input"), metadata));
  });
}
