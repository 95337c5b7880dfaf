#include "nn/memory.h"

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
#include <unordered_map>
#include <vector>

#include "core/libtorch.h"
#include "nn/isa.h"

namespace brume::nn {
namespace {

constexpr size_t small = size_t(1) << 16;       // bytes that malloc keeps well by itself
constexpr size_t large_page = size_t(1) << 21;  // x86-64 and aarch64

/// Of whole pages, large ones where it has room for them; null where there is no memory.
void* from_system(size_t size) {
  if (size < large_page) return std::aligned_alloc(4096, size);
  // Begins where a large page does; what lies around it goes back.
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

void to_system(void* block, size_t size) {
  if (size < large_page)
    std::free(block);
  else
    munmap(block, size);
}

/// Larger blocks of memory while a KeepMemory lives; all else by the allocator that was there before.
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
    if (--alive_ == 0) empty(), most_used_ = 0;
  }
  KeepMemory::Account account() {
    const std::lock_guard lock(mutex_);
    return {taken_, free_bytes_};
  }

 private:
  void* take(size_t bytes) const {
    const std::lock_guard lock(mutex_);
    if (alive_ == 0) return nullptr;
    const size_t size = rounded(bytes);
    // A block of up to twice the size, as what was freed is mostly larger where an image grows and channels become fewer.
    auto found = free_.lower_bound(size);
    if (found == free_.end() || found->first > 2 * size) {
      // What is repeated finds all it needs, once there is a little more than it uses at most. More than that is of something else.
      constexpr size_t slack = size_t(64) << 20;
      const size_t most = most_used_ = std::max(most_used_, used_bytes_ + size);
      while (!free_.empty() && used_bytes_ + free_bytes_ + size > most + most / 8 + slack) drop_oldest();
      void* block = from_system(size);
      if (!block) empty(), block = from_system(size);
      if (!block) return nullptr;  // the one before says how it failed
      taken_ += size;
      free_bytes_ += size;
      found = free_.emplace(size, Free{block, 0});
    }
    void* const block = found->second.block;
    used_[block] = found->first;
    free_bytes_ -= found->first, used_bytes_ += found->first;
    most_used_ = std::max(most_used_, used_bytes_);
    free_.erase(found);
    return block;
  }

  /// False where it is not ours.
  bool put(void* block) {
    const std::lock_guard lock(mutex_);
    const auto found = used_.find(block);
    if (found == used_.end()) return false;
    free_.emplace(found->second, Free{block, ++clock_});
    free_bytes_ += found->second, used_bytes_ -= found->second;
    used_.erase(found);
    if (alive_ == 0) empty();
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
  /// Up to an eighth more, so that sizes that differ a little share blocks.
  static size_t rounded(size_t bytes) {
    const size_t step = std::max<size_t>(4096, (size_t(1) << (63 - __builtin_clzll(bytes))) / 8);
    return (bytes + step - 1) / step * step;
  }

  void drop_oldest() const {
    const auto oldest =
        std::min_element(free_.begin(), free_.end(), [](const auto& a, const auto& b) { return a.second.since < b.second.since; });
    to_system(oldest->second.block, oldest->first);
    free_bytes_ -= oldest->first;
    free_.erase(oldest);
  }
  void empty() const {
    while (!free_.empty()) drop_oldest();
  }

  struct Free {
    void* block;
    uint64_t since;
  };
  at::Allocator* const before_;
  mutable std::mutex mutex_;
  int64_t alive_ = 0;
  uint64_t clock_ = 0;
  mutable std::multimap<size_t, Free> free_;
  mutable std::unordered_map<void*, size_t> used_;
  mutable size_t taken_ = 0, used_bytes_ = 0, free_bytes_ = 0, most_used_ = 0;
};

}  // namespace

KeepMemory::KeepMemory() : keeps_(isa() != Isa::reference) {
  if (keeps_) Keeper::keeper()->begin();
}
KeepMemory::~KeepMemory() {
  if (keeps_) Keeper::keeper()->end();
}
KeepMemory::Account KeepMemory::account() { return Keeper::keeper()->account(); }

Tensor lasting_memory(size_t bytes) {
  const size_t size = (bytes + 4095) / 4096 * 4096;
  void* const block = from_system(size);
  if (!block) return at::empty({int64_t(bytes)}, at::kByte);  // which says how it failed
  return at::from_blob(
      block, {int64_t(bytes)}, [size](void* p) { to_system(p, size); }, at::kByte);
}

void let_go_of_file(const void* data, size_t bytes) {
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
