#include "brume/train/accumulation.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>

#include "brume/core/rows.h"

namespace brume {
namespace {

Batch rows_of(const Batch& batch, const BatchPart& part) {
  const auto begin = batch.annotations.begin() + part.first;
  return {batch.images.narrow(0, part.first, part.count), std::vector<Annotation>(begin, begin + part.count), batch.encoded};
}

}  // namespace

BatchFigures backward(Learner& learner, const Batch& batch, int64_t step, int64_t parts, at::Generator& random) {
  if (parts == 1) {
    Learner::Loss l = learner.loss(batch, step, random);
    l.loss.backward();
    return {l.loss.item<double>(), std::move(l.metrics)};
  }
  BatchFigures mean;
  const Tensor start = random.get_state();
  const int64_t total = batch.images.size(0), count = total / parts;
  for (int64_t i = 0; i < parts; ++i) {
    const BatchPart part{i * count, count, total};
    const BatchPartScope scope(part);
    random.set_state(start);
    const Learner::Loss l = learner.loss(rows_of(batch, part), step, random);
    (l.loss / double(parts)).backward();
    mean.loss += l.loss.item<double>() / double(parts);
    if (i == 0)
      for (const auto& [name, _] : l.metrics) mean.metrics.emplace_back(name, 0);
    for (size_t m = 0; m < l.metrics.size(); ++m) mean.metrics[m].second += l.metrics[m].second / double(parts);
  }
  return mean;
}

}  // namespace brume
