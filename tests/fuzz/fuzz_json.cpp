// JSON as diffusers writes it: the config.json of a network, whose reader wants a file by name.
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "brume/interop/import/diffusers_unet.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const int file = ::memfd_create("input", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  if (::ftruncate(file, 0) != 0 || ::pwrite(file, data, size, 0) != ssize_t(size)) return 0;
  return brume::fuzz::try_to(data, size, [] { brume::read_diffusers_unet(path).options(); });
}
