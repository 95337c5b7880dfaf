#include "brume/numerics/learning_rate.h"

#include <algorithm>
#include <cmath>

namespace brume {

void LearningRate::declare(Fields& f) {
  f.field("lr", lr, "learning rate", more_than(0));
  f.field("warmup", warmup, "steps over which it rises from 0", at_least(0));
  f.choice("decay", decay, "learning rate after the warm-up", {{"constant", Decay::constant}, {"cosine", Decay::cosine}});
  f.field("clip", clip, "largest norm of the whole gradient; 0 = no clipping", at_least(0));
}

double LearningRate::at(int64_t step, int64_t steps) const {
  if (step < warmup) return lr * double(step) / double(warmup);
  if (decay == Decay::constant) return lr;
  const double progress = double(step - warmup) / double(std::max<int64_t>(1, steps - warmup));
  return lr * std::max(0.0, 0.5 * (1 + std::cos(M_PI * std::min(progress, 1.0))));
}

}  // namespace brume
