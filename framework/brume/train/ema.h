#pragma once
// The exponential moving average of the weights.
#include <map>
#include <string>
#include <vector>

#include "brume/core/network.h"
#include "brume/train/options.h"

namespace brume {

/// shadow <- d shadow + (1 - d) w after each update, d rising to `decay` (diffusers' EMAModel).
class Ema {
 public:
  Ema(const std::vector<Weight>& weights, const EmaOptions& options);
  /// The decay of update number `step`, counted from 0.
  double decay(int64_t step) const;
  /// `values`: of the weights, by name, if they are not the weights themselves (Optimizer::evaluated).
  void update(int64_t step, const std::map<std::string, Tensor>& values = {});
  /// Copies what is not trainable: a codebook that moves by a rule of its own is an average already.
  void take_buffers();
  /// The averaged weights, named as the weights are.
  const std::vector<Weight>& shadow() const { return shadow_; }

 private:
  EmaOptions o_;
  std::vector<Weight> weights_, shadow_;
};

}  // namespace brume
