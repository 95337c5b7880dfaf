// A zip archive, all of whose entries are read.
#include "brume/files/mapped_file.h"
#include "brume/files/zip.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return brume::fuzz::try_to(data, size, [] {
    const brume::ZipArchive archive(brume::MappedFile::open("input"));
    for (const auto& entry : archive.entries()) archive.read(entry);
  });
}
