// The index of a tar archive: every file in it lies within it.
#include <cstdlib>

#include "brume/files/tar.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace brume;
  return fuzz::try_to(data, size, [] {
    for (const TarEntry& e : read_tar(fuzz::input, "input"))
      if (e.offset > fuzz::input.size() || e.size > fuzz::input.size() - e.offset) std::abort();
  });
}
