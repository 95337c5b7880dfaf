#include "brume/numerics/learning_rate.h"

#include <algorithm>

#include "brume/config/foreign.h"

namespace brume {

void LearningRate::declare(Fields& f) {
  f.field("lr", lr, "learning rate", more_than(0));
  f.field("warmup", warmup, "steps over which it rises from 0", at_least(0));
  f.field("decay", decay, "learning rate after the warm-up", "constant");
  f.field("clip", clip, "largest norm of the whole gradient; 0 = no clipping", at_least(0));
  f.field("clip_value", clip_value, "largest magnitude of each number of the gradient, after `clip`; 0 = no clipping", at_least(0));
}

double LearningRate::at(int64_t step, int64_t steps, double peak) const {
  const int64_t before = std::min(step, warmup);  // a schedule is as far in the warm-up as if that ended here
  const double risen = before < warmup ? peak * double(before) / double(warmup) : peak;
  if (!decay) return risen;
  const LearningRateSchedule::Progress progress{step - before, std::max<int64_t>(1, steps - warmup), before};
  return risen * calling(*decay, "factor()", [&] { return decay->factor(progress); });
}

}  // namespace brume
