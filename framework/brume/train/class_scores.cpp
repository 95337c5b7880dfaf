#include "brume/train/class_scores.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cross_entropy_loss.h>

#include <algorithm>

#include "brume/core/interruption.h"
#include "brume/train/loader.h"

namespace brume {

void ClassScores::add(const Tensor& logits, const Tensor& labels) {
  images += labels.size(0);
  right += (logits.argmax(1) == labels).sum().item<int64_t>();
  loss += at::cross_entropy_loss(logits, labels, {}, at::Reduction::Sum).item<double>();
}

int64_t count_of(const Dataset& data, int64_t limit) {
  if (data.size() == 0 && limit <= 0) throw std::logic_error("all images of an endless set were asked for");
  return limit <= 0 ? data.size() : data.size() == 0 ? limit : std::min(limit, data.size());
}

void for_each_batch(const Dataset& data, const ImageShape& shape, int64_t batch, int64_t limit, const TakeBatch& take) {
  for_each_batch(data, shape, batch, NumberRange{0, count_of(data, limit)}, take);
}

void for_each_batch(const Dataset& data, const ImageShape& shape, int64_t batch, const NumberRange& range, const TakeBatch& take) {
  for (int64_t first = range.begin; first < range.end; first += batch) {
    stop_if_asked();
    const Batch read = read_in_turn(data, shape, first, std::min(batch, range.end - first));
    if (read.annotations.empty()) continue;
    if (!take(read.images, read.annotations)) return;
  }
}

}  // namespace brume
