#pragma once
// The backbone: F(input, c_noise, condition).
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "brume/core/condition.h"
#include "brume/core/dataset.h"
#include "brume/core/noise_embedding.h"

namespace brume {
class NoiseSchedule;
class Parameterization;

/// One tensor of a model. Copies share storage: loading a checkpoint copies into these, training optimises them.
struct Weight {
  std::string name;
  Tensor tensor;
  bool trainable = true;   ///< false for buffers
  bool any_dtype = false;  ///< read by what takes weights of any dtype (nn::conv2d, nn::linear, rows of a table), whatever is computed in
};

/// The same tensors under names that begin with `prefix`.
std::vector<Weight> prefixed(const std::string& prefix, const std::vector<Weight>& weights);

/// A neural network without knowledge of schedules, samplers or losses. `const` and safe to call from several threads.
class Network {
 public:
  static constexpr std::string_view kind = "network";

  /// What the rest of the model fixes, so that a configuration cannot contradict itself.
  struct Context {
    ImageShape input;            ///< channels, height, width of x
    int64_t out_channels = 3;    ///< channels of the output
    int64_t classes = 0;         ///< rows of the class embedding (with the null class); 0 = not class-conditional
    uint64_t seed = 0;           ///< of the initial weights
    int64_t context_width = 0;   ///< of the tokens of Condition::context; 0 = there are none
    int64_t image_channels = 0;  ///< of Condition::image, which the network lays beside x; 0 = there is none
    /// Those of the model, for networks whose output is known in closed form. What learns has no use for them.
    std::shared_ptr<const NoiseSchedule> noise = nullptr;
    std::shared_ptr<const Parameterization> parameterization = nullptr;
  };

  virtual ~Network() = default;
  /// input: [B, C, H, W] in the compute dtype; c_noise: [B] float32. Returns [B, out_channels, H, W] in the dtype of input.
  /// `dropout`: the source of randomness while training; null means evaluation.
  virtual Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition& condition, at::Generator* dropout) const = 0;
  virtual NoiseQuantity quantity() const = 0;
  /// Heights and widths of x are multiples of this.
  virtual int64_t multiple() const { return 1; }
  /// Every tensor in a stable order with stable, unique names; empty for a network without weights.
  virtual std::vector<Weight> weights() const = 0;
};

}  // namespace brume
