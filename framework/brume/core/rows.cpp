#include "brume/core/rows.h"

#include <stdexcept>

namespace brume {
namespace {
thread_local const BatchPart* innermost = nullptr;
}  // namespace

BatchPartScope::BatchPartScope(const BatchPart& part) : part_(part), outer_(innermost) { innermost = &part_; }
BatchPartScope::~BatchPartScope() { innermost = outer_; }

const BatchPart* batch_part() { return innermost; }

Tensor draw_rows(int64_t count, const std::function<Tensor(int64_t n)>& draw) {
  if (!innermost) return draw(count);
  if (count % innermost->count != 0) throw std::logic_error("random numbers are drawn for whole images of a part");
  const int64_t each = count / innermost->count;
  return draw(innermost->total * each).narrow(0, innermost->first * each, count);
}

}  // namespace brume
