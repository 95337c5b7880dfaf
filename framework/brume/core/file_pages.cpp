#include "brume/core/file_pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

namespace brume {

void discard_file_pages(const void* data, size_t bytes) {
#if defined(__linux__)
  const auto page = size_t(sysconf(_SC_PAGESIZE));
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + page - 1) / page, last = (reinterpret_cast<uintptr_t>(data) + bytes) / page;
  const int map = first < last ? open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC) : -1;
  if (map < 0) return;
  // Documentation/admin-guide/mm/pagemap.rst: an entry a page, of which bit 63 says that it is present, 61 that it is a file's. One
  // that was written to is private and has the latter no more; giving it up would lose what was written.
  constexpr size_t at_once = 512;
  uint64_t entries[at_once];
  for (uintptr_t from = first; from < last; from += at_once) {
    const size_t count = std::min<size_t>(at_once, last - from);
    if (pread(map, entries, count * sizeof(uint64_t), off_t(from * sizeof(uint64_t))) != ssize_t(count * sizeof(uint64_t))) break;
    for (size_t i = 0; i < count;) {
      size_t end = i;
      while (end < count && entries[end] >> 63 && entries[end] >> 61 & 1) ++end;
      if (end > i) madvise(reinterpret_cast<void*>((from + i) * page), (end - i) * page, MADV_DONTNEED);
      i = end + 1;
    }
  }
  close(map);
#endif
}

}  // namespace brume
