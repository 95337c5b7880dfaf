#pragma once
// The backbone: F(input, c_noise, condition).
//
// How to write one:
//   1. Derive a final class from Network with a nested `Options` (fields with defaults, `declare(Fields&)`).
//   2. Make it from (Options, Context): the context has the channels, the classes and the seed. `static void check(options, context)`
//      refuses what does not fit, before weights are made.
//   3. Build layers with nn::Builder (nn/blocks/layers.h), which names the weights; `weights()` returns them.
//   4. Implement `forward()`; read of the condition what the context announces, and treat each image alone.
//   5. Put it into plugins/networks/NAME.cpp, which ends with `register_network_NAME`.
//   6. Read plugins/networks/unet.cpp as an example; `brume new network NAME` writes a smaller one.
//   7. Run test_contracts --gtest_filter='*Network*NAME*' (tests/contracts/network_test.cpp).
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "brume/core/condition.h"
#include "brume/core/dataset.h"
#include "brume/core/noise_embedding.h"
#include "brume/core/taps.h"

namespace brume {
class NoiseSchedule;
class Parameterization;

/// One tensor of a model. Copies share storage: loading a checkpoint copies into these, training optimises them.
struct Weight {
  std::string name;
  Tensor tensor;
  bool trainable = true;   ///< false for buffers
  bool any_dtype = false;  ///< may stay in the dtype of its file: read by layers that take any (nn::conv2d, nn::linear, rows of a table)
};

/// Returns the same tensors under names that begin with `prefix`.
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
    int64_t context_width = 0;   ///< of the tokens of Condition::context; 0 = none
    int64_t image_channels = 0;  ///< of Condition::image, which the network concatenates to x; 0 = none
    int64_t vector_width = 0;    ///< of Condition::vector; 0 = none
    int64_t size_ids = 0;        ///< numbers per row of Condition::sizes; 0 = none
    bool guidance = false;       ///< the condition has Condition::guidance
    /// The model's own, for networks whose output is known in closed form.
    std::shared_ptr<const NoiseSchedule> noise = nullptr;
    std::shared_ptr<const Parameterization> parameterization = nullptr;
  };

  virtual ~Network() = default;
  /// Returns [B, out_channels, H, W] in the dtype of `input`. input: [B, C, H, W] in the compute dtype; c_noise: [B] float32.
  /// `dropout`: the source of randomness while training; null = evaluation. `taps`: name blocks of tap_points() alone, which the
  /// caller has checked; empty taps change no bit.
  virtual Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition& condition, at::Generator* dropout,
                         const Taps& taps = {}) const = 0;
  virtual NoiseQuantity quantity() const = 0;
  /// Returns the learned log variance of the training loss at each noise level, [B] float32 (Karras et al. 2024, "Analyzing and Improving
  /// the Training Dynamics of Diffusion Models", eq. 21); undefined for a network that learns none. c_noise: [B] float32.
  virtual Tensor log_variance(const Tensor& /*c_noise*/) const { return {}; }
  /// Rescales the weights, in place, to the norm that training keeps (the same paper, sec. 2.3); called before each training step.
  virtual void normalize_weights() const {}
  /// Returns the factor of the rows of classes that a network with `own` rows takes over from one with `theirs` (train.adopt), with which
  /// each class adds what it did. Not 1 if a row counts by the number of rows (Karras et al. 2022: sqrt(rows)).
  virtual double adopted_class_scale(int64_t /*theirs*/, int64_t /*own*/) const { return 1; }
  /// Returns the number that heights and widths of x are multiples of.
  virtual int64_t multiple() const { return 1; }
  /// Returns the blocks that taps can name; a network without any is never called with taps.
  virtual TapPoints tap_points() const { return {}; }
  /// Returns every tensor in a stable order with stable, unique names; empty for a network without weights.
  virtual std::vector<Weight> weights() const = 0;
};

/// The parts of a condition that a network computes with.
struct ConditionParts {
  bool classes = false, tokens = false, image = false, vector = false, sizes = false, guidance = false;
};

/// Throws ConfigError if the conditioner gives a part that `network` (its name in a configuration) does not take, and names the part.
void check_condition(std::string_view network, const ConditionParts& taken, const Network::Context& context);

}  // namespace brume
