#pragma once
// What optimizers share: the schedule of the learning rate and the clipping of gradients.
#include <cstdint>

#include "brume/config/fields.h"

namespace brume {

/// Linear warm-up from 0, then constant or half a cosine down to 0 (Loshchilov & Hutter 2017, without restarts).
struct LearningRate {
  enum class Decay { constant, cosine };
  double lr = 2e-4;
  int64_t warmup = 0;
  Decay decay = Decay::constant;
  double clip = 1;
  void declare(Fields& f);
  double at(int64_t step, int64_t steps) const;
};

}  // namespace brume
