#pragma once
// The memory of tensors: its origin and its return.
#include <cstddef>

#include "brume/core/tensor.h"

namespace brume::nn {

/// While one lives, memory of the CPU's tensors that is freed is kept and given to those that come after, in large pages if the
/// system has them: a network evaluated again and again takes nothing from the system after the first times, which would clear it page by
/// page. What is left goes back at the end of the last one. For all threads; costs nothing if none lives, and does nothing with
/// Isa::reference.
class MemoryPoolScope {
 public:
  MemoryPoolScope();
  ~MemoryPoolScope();
  MemoryPoolScope(const MemoryPoolScope&) = delete;
  MemoryPoolScope& operator=(const MemoryPoolScope&) = delete;

  /// Bytes that were taken from the system so far, and those that lie free.
  struct Account {
    size_t taken, free;
  };
  static Account account();

  /// Gives memory that lies free back to the system, for those who need it from there.
  static void release();

 private:
  bool keeps_;
};

/// Returns bytes in pages of their own, large ones if there are any, for what stays as long as a model does: MemoryPoolScope's blocks,
/// which may be larger than was asked for, are for what comes and goes.
Tensor lasting_memory(size_t bytes);

}  // namespace brume::nn
