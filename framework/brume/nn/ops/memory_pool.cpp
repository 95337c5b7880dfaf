#include "brume/nn/ops/memory_pool.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "brume/core/libtorch.h"
#include "brume/nn/ops/isa.h"

namespace brume::nn {
namespace {

constexpr size_t small = size_t(1) << 16;       // bytes that malloc keeps well on its own; a multiple of every processor's page
constexpr size_t large_page = size_t(1) << 21;  // x86-64 and aarch64

size_t rounded(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

/// In large pages, if the system has them; null if there is no memory. `size`: a multiple of `small`.
void* from_system(size_t size) {
  // Begins at a large page; what lies around it goes back.
  void* const whole = mmap(nullptr, size + large_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (whole == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<char*>(whole);
  char* const block = begin + (large_page - reinterpret_cast<uintptr_t>(begin) % large_page) % large_page;
  if (block > begin) munmap(begin, size_t(block - begin));
  munmap(block + size, size_t(begin + large_page - block));
#if defined(MADV_HUGEPAGE)
  madvise(block, size, MADV_HUGEPAGE);
#endif
  return block;
}

/// Memory while a MemoryPoolScope lives, from regions that are cut into blocks; all else by the allocator that was there before. A block
/// that is freed joins its free neighbours, and the next one is cut from the smallest that has room (best fit), so that what is repeated
/// comes to find all it needs.
class Keeper final : public at::Allocator {
 public:
  explicit Keeper(at::Allocator* before) : before_(before) {}

  at::DataPtr allocate(size_t bytes) BRUME_ALLOCATE_CONST override {
    if (bytes >= small)
      if (void* const block = take(bytes)) return {block, block, &give_back, at::Device(at::kCPU)};
    return before_->allocate(bytes);
  }
  at::DeleterFnPtr raw_deleter() const override { return &give_back; }
  BRUME_ALLOCATOR_COPIES

  void begin() {
    const std::lock_guard lock(mutex_);
    ++alive_;
  }
  void end() {
    const std::lock_guard lock(mutex_);
    if (--alive_ == 0) give_back_regions(), give_back_pages();
  }
  MemoryPoolScope::Account account() {
    const std::lock_guard lock(mutex_);
    size_t free = 0;
    for (const auto& [size, _] : free_) free += size;
    return {taken_, alive_ > 0 ? free : 0};  // if none lives, only addresses are left
  }

 private:
  struct Block {
    size_t size;
    bool free, begins;  ///< a region
  };
  using Blocks = std::map<char*, Block>;  // by address, each region's one after the other

  void* take(size_t bytes) const {
    const std::lock_guard lock(mutex_);
    if (alive_ == 0) return nullptr;
    const size_t size = rounded(bytes, small);
    auto found = free_.lower_bound({size, nullptr});
    if (found == free_.end()) {
      give_back_regions();              // of other sizes than are wanted now
      if (!grow(size)) return nullptr;  // the allocator before says how it failed
      found = free_.lower_bound({size, nullptr});
    }
    const auto at = blocks_.find(found->second);
    free_.erase(found);
    if (const size_t rest = at->second.size - size; rest > 0) {
      blocks_[at->first + size] = {rest, true, false};
      free_.insert({rest, at->first + size});
    }
    at->second = {size, false, at->second.begins};
    return at->first;
  }

  bool grow(size_t size) const {
    const size_t region = rounded(std::max(size, least), large_page);
    auto* const begin = static_cast<char*>(from_system(region));
    if (!begin) return false;
    taken_ += region;
    blocks_[begin] = {region, true, true};
    free_.insert({region, begin});
    return true;
  }

  /// False if it is not ours.
  bool put(void* block) {
    const std::lock_guard lock(mutex_);
    auto at = blocks_.find(static_cast<char*>(block));
    if (at == blocks_.end()) return false;
    at->second.free = true;
    if (const auto next = std::next(at); next != blocks_.end() && next->second.free && !next->second.begins) {
      free_.erase({next->second.size, next->first});
      at->second.size += next->second.size;
      blocks_.erase(next);
    }
    if (!at->second.begins && std::prev(at)->second.free) {
      const auto before = std::prev(at);
      free_.erase({before->second.size, before->first});
      before->second.size += at->second.size;
      blocks_.erase(at);
      at = before;
    }
    free_.insert({at->second.size, at->first});
    if (alive_ == 0) give_back_regions(), give_back_pages();
    return true;
  }

  static void give_back(void* block) {
    if (!keeper()->put(block)) keeper()->before_->raw_deleter()(block);
  }

 public:
  static Keeper* keeper() {
    static Keeper* const one = [] {
      auto* made = new Keeper(c10::GetCPUAllocator());  // never freed: tensors outlive all else
      c10::SetCPUAllocator(made, 1);
      return made;
    }();
    return one;
  }

 private:
  /// Of which nothing is used.
  void give_back_regions() const {
    for (auto at = blocks_.begin(); at != blocks_.end();) {
      const auto next = std::next(at);
      if (at->second.free && at->second.begins && (next == blocks_.end() || next->second.begins)) {
        free_.erase({at->second.size, at->first});
        munmap(at->first, at->second.size);
        blocks_.erase(at);
      }
      at = next;
    }
  }
  /// Of what is free in regions that something outlives.
  void give_back_pages() const {
    for (const auto& [size, begin] : free_) madvise(begin, size, MADV_DONTNEED);
  }

  static constexpr size_t least = size_t(32) << 20;  // bytes of a region
  at::Allocator* const before_;
  mutable std::mutex mutex_;
  int64_t alive_ = 0;
  mutable Blocks blocks_;
  mutable std::set<std::pair<size_t, char*>> free_;
  mutable size_t taken_ = 0;
};

}  // namespace

MemoryPoolScope::MemoryPoolScope() : keeps_(isa() != Isa::reference) {
  if (keeps_) Keeper::keeper()->begin();
}
MemoryPoolScope::~MemoryPoolScope() {
  if (keeps_) Keeper::keeper()->end();
}
MemoryPoolScope::Account MemoryPoolScope::account() { return Keeper::keeper()->account(); }

Tensor lasting_memory(size_t bytes) {
  constexpr size_t line = 64;  // of the cache
  const bool large = bytes >= large_page;
  const size_t size = rounded(bytes, large ? small : line);
  void* const block = large ? from_system(size) : std::aligned_alloc(line, size);
  if (!block) return at::empty({int64_t(bytes)}, at::kByte);  // which says how it failed
  return at::from_blob(
      block, {int64_t(bytes)}, [size, large](void* p) { large ? void(munmap(p, size)) : std::free(p); }, at::kByte);
}

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

}  // namespace brume::nn
