#pragma once
// The exponential moving average of the weights.
#include <map>
#include <string>
#include <vector>

#include "brume/core/network.h"
#include "brume/train/options.h"

namespace brume {

/// Returns the number of averages that the options ask for.
size_t averages_of(const EmaOptions& options);

/// shadow <- d shadow + (1 - d) w after each update, d rising to `decay` (diffusers' EMAModel), or following a power function
/// (numerics/power_average.h).
class Ema {
 public:
  /// Copies the weights. `number`: which of the options' averages.
  Ema(const std::vector<Weight>& weights, const EmaOptions& options, size_t number = 0);
  /// Returns the decay of update number `step`, counted from 0.
  double decay(int64_t step) const;
  /// Averages in the weights after update number `step`. `values`: of the weights, by name, if they are not the weights themselves
  /// (Optimizer::evaluated).
  void update(int64_t step, const std::map<std::string, Tensor>& values = {});
  /// Copies what is not trainable: a codebook that moves by a rule of its own is an average already.
  void take_buffers();
  /// Returns the averaged weights, named as the weights are.
  const std::vector<Weight>& shadow() const { return shadow_; }

 private:
  EmaOptions o_;
  double exponent_ = 0;  ///< of a power function
  std::vector<Weight> weights_, shadow_;
};

}  // namespace brume
