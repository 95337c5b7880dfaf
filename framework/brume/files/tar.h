#pragma once
// Tar archives as an index of their files: ustar (POSIX.1-1988), GNU long names, pax (POSIX.1-2001) paths and sizes.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace brume {

struct TarEntry {
  std::string name;
  uint64_t offset = 0, size = 0;  ///< of its content in the archive
};

/// Returns the regular files of an archive in its order. `path` names it in errors: a ConfigError if a header's checksum is wrong, if a
/// number is none, or if the archive ends inside a file.
std::vector<TarEntry> read_tar(std::string_view archive, const std::string& path);

}  // namespace brume
