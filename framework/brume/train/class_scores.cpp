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

void for_each_batch(const Dataset& data, const ImageShape& shape, int64_t batch, int64_t limit,
                    const std::function<bool(const Tensor&, const std::vector<Annotation>&)>& take) {
  if (data.size() == 0 && limit <= 0) throw std::logic_error("all images of an endless set were asked for");
  const int64_t count = limit <= 0 ? data.size() : data.size() == 0 ? limit : std::min(limit, data.size());
  for (int64_t first = 0; first < count; first += batch) {
    stop_if_asked();
    const int64_t n = std::min(batch, count - first);
    const Batch read = read_in_turn(data, shape, first, n);
    if (read.annotations.empty()) continue;
    if (!take(read.images, read.annotations)) return;
  }
}

}  // namespace brume
