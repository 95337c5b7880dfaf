#include "brume/train/accumulation.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>

#include "brume/core/rows.h"
#include "brume/core/step_parts.h"

namespace brume {
namespace {

Batch rows_of(const Batch& batch, int64_t first, int64_t count) {
  const auto begin = batch.annotations.begin() + first;
  Batch part{batch.images.narrow(0, first, count), std::vector<Annotation>(begin, begin + count), batch.encoded};
  if (batch.weights.defined()) part.weights = batch.weights.narrow(0, first, count);
  return part;
}

}  // namespace

BatchFigures backward(Learner& learner, const Batch& batch, int64_t step, int64_t parts, World& world, at::Generator& random,
                      GradientSum& gradients) {
  if (parts == 1 && world.size() == 1) {
    Learner::Loss l = learner.loss(batch, step, random);
    l.loss.backward();
    return {l.loss.item<double>(), std::move(l.metrics)};
  }
  BatchFigures sum;
  const Tensor start = random.get_state();
  const int64_t rows = batch.images.size(0), count = rows / parts;
  const double all = double(parts * world.size());
  StepParts step_parts(
      parts, world.size() == 1 ? StepParts::Gather() : [&](const Tensor& t) { return world.all_gather_rows(t); });
  const auto pass = [&](bool survey, const std::function<void(const Learner::Loss&, bool last)>& use) {
    for (int64_t i = 0; i < parts; ++i) {
      const BatchPartScope scope({world.rank() * rows + i * count, count, world.size() * rows});
      step_parts.begin(survey);
      random.set_state(start);
      use(learner.loss(rows_of(batch, i * count, count), step, random), i == parts - 1);
    }
  };
  if (parts > 1 && learner.needs_whole(step)) {
    pass(true, [](const Learner::Loss&, bool) {});
    step_parts.end_survey();
  }
  pass(false, [&](const Learner::Loss& l, bool last) {
    const auto one = [&] { (l.loss / all).backward(); };
    last ? gradients.during(one) : one();
    sum.loss += l.loss.item<double>() / all;
    if (sum.metrics.empty())
      for (const auto& [name, _] : l.metrics) sum.metrics.emplace_back(name, 0);
    for (size_t m = 0; m < l.metrics.size(); ++m) sum.metrics[m].second += l.metrics[m].second / all;
  });
  step_parts.finish();
  return sum;
}

}  // namespace brume
