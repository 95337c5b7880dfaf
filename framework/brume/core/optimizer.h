#pragma once
// Optimizers and their learning rates.
//
// How to write one:
//   1. Derive a final class from Optimizer with a nested `Options` (its fields, `declare(Fields&)`), made from (Options, Context).
//   2. Implement `update()`: read and clear the gradients, write the weights under at::NoGradGuard; change nothing if the norm is not
//   finite.
//   3. Use numerics/learning_rate.h for warm-up, decay and clipping, and numerics/gradient.h for what is common to all.
//   4. Return every moment and counter from `state()`: a training resumes bit for bit.
//   5. Put it into plugins/optimizers/NAME.cpp, which ends with `register_optimizer_NAME`.
//   6. Read plugins/optimizers/adam.cpp as an example; `brume new optimizer NAME` writes another.
//   7. Run test_contracts --gtest_filter='*Optimizer*NAME*' (tests/contracts/optimizer_test.cpp).
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "brume/core/network.h"

namespace brume {

/// Updates weights from their gradients, with its own schedule of the learning rate.
class Optimizer {
 public:
  static constexpr std::string_view kind = "optimizer";
  /// What a weight has instead of the options.
  struct Own {
    std::optional<double> lr{}, weight_decay{};
  };
  struct Context {
    std::vector<Weight> weights;    ///< the trainable ones, float32
    int64_t steps = 0;              ///< of the whole training
    std::vector<Own> own{};         ///< one per weight; empty = no weight has anything of its own
    std::vector<Weight> counted{};  ///< weights whose gradients count in the norm, if `weights` are a part of them; empty = `weights`
  };
  virtual ~Optimizer() = default;
  /// Updates the weights from their .grad(), which it clears. `step` counts from 0. Returns the norm of the gradient before
  /// clipping; nothing is updated if that is not finite.
  virtual double update(int64_t step) = 0;
  virtual double learning_rate(int64_t step) const = 0;
  /// Returns the values that the weights are evaluated and saved with, in the order of the context's; empty = the weights themselves.
  virtual std::vector<Tensor> evaluated() const { return {}; }
  /// Returns further figures of the last update, by name, for metrics.jsonl.
  virtual std::vector<std::pair<std::string, double>> figures() const { return {}; }
  /// Returns the moments and counters that a checkpoint saves; restoring copies into these tensors.
  virtual std::vector<Weight> state() const = 0;
};

}  // namespace brume
