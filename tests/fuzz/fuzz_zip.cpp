// A zip archive, all of whose entries are read.
#include "input.h"
#include "io/mapped_file.h"
#include "io/zip.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return brume::fuzz::try_to(data, size, [] {
    const brume::io::ZipArchive archive(brume::io::MappedFile::open("input"));
    for (const auto& entry : archive.entries()) archive.read(entry);
  });
}
