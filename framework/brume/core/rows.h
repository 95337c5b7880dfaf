#pragma once
// Random numbers of a part of a batch: those that its rows have in the whole batch.
#include <cstdint>
#include <functional>

#include "brume/core/tensor.h"

namespace brume {

/// Rows `first` to `first + count` of a batch of `total`.
struct BatchPart {
  int64_t first, count, total;
};

/// While it lives, the batches that this thread trains on are this part of a batch.
class BatchPartScope {
 public:
  explicit BatchPartScope(const BatchPart& part);
  ~BatchPartScope();
  BatchPartScope(const BatchPartScope&) = delete;
  BatchPartScope& operator=(const BatchPartScope&) = delete;

 private:
  BatchPart part_;
  const BatchPart* outer_;
};

/// Returns the part of the innermost scope of this thread; null if batches are whole.
const BatchPart* batch_part();

/// Returns [count, ...] of draw(n), which draws [n, ...] random numbers: all of draw(count) or, of a part, its rows of the whole batch's.
/// `count`: a multiple of the images.
Tensor draw_rows(int64_t count, const std::function<Tensor(int64_t n)>& draw);

}  // namespace brume
