#pragma once
// Gradients of a batch that is computed in parts.
#include "brume/train/learner.h"

namespace brume {

/// What a batch adds to metrics.jsonl: means over its images.
struct BatchFigures {
  double loss = 0;
  Metrics metrics{};
};

/// Adds the gradients of the batch's mean loss to those of the learner's weights. `parts` > 1 computes as many equal parts one after the
/// other, each with the random numbers that its rows have in the whole batch; `random` is left as the whole batch leaves it.
BatchFigures backward(Learner& learner, const Batch& batch, int64_t step, int64_t parts, at::Generator& random);

}  // namespace brume
