#pragma once
// Gradients of a batch that is computed in parts.
#include "brume/distributed/world.h"
#include "brume/train/data_parallel.h"
#include "brume/train/learner.h"

namespace brume {

/// What a batch adds to metrics.jsonl: means over its images.
struct BatchFigures {
  double loss = 0;
  Metrics metrics{};
};

/// Adds the gradients of this process's rows to those of the learner's weights, as they are in the whole batch's mean loss, and returns
/// what they add to its means: the sums over all processes are the whole batch's. `gradients` begins to sum them. `batch`: rows
/// rank B / N to (rank + 1) B / N. `parts` > 1 computes as many equal parts of them one after the other, each with the random numbers that
/// its rows have in the whole batch; `random` is left as the whole batch leaves it.
BatchFigures backward(Learner& learner, const Batch& batch, int64_t step, int64_t parts, World& world, at::Generator& random,
                      GradientSum& gradients);

}  // namespace brume
