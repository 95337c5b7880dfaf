#include "brume/nn/ops/memory_pool.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <compare>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>

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
/// comes to find all it needs. Long blocks have regions of their own: a short one that stays would keep what is left of a long one from
/// use.
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
  void release() {
    const std::lock_guard lock(mutex_);
    give_back_regions();
  }
  MemoryPoolScope::Account account() {
    const std::lock_guard lock(mutex_);
    size_t free = 0;
    for (const Free& block : free_) free += block.size;
    return {taken_, alive_ > 0 ? free : 0};  // if none lives, only addresses are left
  }

 private:
  struct Block {
    size_t size;
    bool free, begins;  ///< a region
    bool is_long;       ///< of a region of long blocks
  };
  struct Free {
    bool is_long;
    size_t size;
    char* begin;
    auto operator<=>(const Free&) const = default;  // NOLINT(modernize-use-nullptr): clang-tidy 14 sees a 0 there
  };
  using Blocks = std::map<char*, Block>;  // by address, each region's one after the other

  void* take(size_t bytes) const {
    const std::lock_guard lock(mutex_);
    if (alive_ == 0) return nullptr;
    const size_t size = rounded(bytes, small);
    const bool is_long = size >= long_block;
    const auto fitting = [&] {
      const auto found = free_.lower_bound({is_long, size, nullptr});
      return found != free_.end() && found->is_long == is_long ? found : free_.end();
    };
    auto found = fitting();
    if (found == free_.end()) {
      give_back_regions();                       // of other sizes than are wanted now
      if (!grow(size, is_long)) return nullptr;  // the allocator before says how it failed
      found = fitting();
    }
    const auto at = blocks_.find(found->begin);
    free_.erase(found);
    if (const size_t rest = at->second.size - size; rest > 0) {
      blocks_[at->first + size] = {rest, true, false, is_long};
      free_.insert({is_long, rest, at->first + size});
    }
    at->second = {size, false, at->second.begins, is_long};
    return at->first;
  }

  bool grow(size_t size, bool is_long) const {
    const size_t region = rounded(std::max(size, is_long ? 0 : least), large_page);
    auto* const begin = static_cast<char*>(from_system(region));
    if (!begin) return false;
    taken_ += region;
    blocks_[begin] = {region, true, true, is_long};
    free_.insert({is_long, region, begin});
    return true;
  }

  /// False if it is not ours.
  bool put(void* block) {
    const std::lock_guard lock(mutex_);
    auto at = blocks_.find(static_cast<char*>(block));
    if (at == blocks_.end()) return false;
    at->second.free = true;
    if (const auto next = std::next(at); next != blocks_.end() && next->second.free && !next->second.begins) {
      free_.erase(free(*next));
      at->second.size += next->second.size;
      blocks_.erase(next);
    }
    if (!at->second.begins && std::prev(at)->second.free) {
      const auto before = std::prev(at);
      free_.erase(free(*before));
      before->second.size += at->second.size;
      blocks_.erase(at);
      at = before;
    }
    free_.insert(free(*at));
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
        free_.erase(free(*at));
        munmap(at->first, at->second.size);
        blocks_.erase(at);
      }
      at = next;
    }
  }
  /// Of what is free in regions that something outlives.
  void give_back_pages() const {
    for (const Free& block : free_) madvise(block.begin, block.size, MADV_DONTNEED);
  }
  static Free free(const Blocks::value_type& block) { return {block.second.is_long, block.second.size, block.first}; }

  static constexpr size_t least = size_t(32) << 20;       // bytes of a region of short blocks
  static constexpr size_t long_block = size_t(16) << 20;  // bytes from which a block is long
  at::Allocator* const before_;
  mutable std::mutex mutex_;
  int64_t alive_ = 0;
  mutable Blocks blocks_;
  mutable std::set<Free> free_;
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
void MemoryPoolScope::release() {
  Keeper::keeper()->release();
  malloc_trim(0);
}

Tensor lasting_memory(size_t bytes) {
  constexpr size_t line = 64;  // of the cache
  const bool large = bytes >= large_page;
  const size_t size = rounded(bytes, large ? small : line);
  void* const block = large ? from_system(size) : std::aligned_alloc(line, size);
  if (!block) return at::empty({int64_t(bytes)}, at::kByte);  // which says how it failed
  return at::from_blob(
      block, {int64_t(bytes)}, [size, large](void* p) { large ? void(munmap(p, size)) : std::free(p); }, at::kByte);
}

}  // namespace brume::nn
