#pragma once
// The noise level as a network's input: c_noise and its features.
//
// How to write one:
//   1. Derive a final class from NoiseEmbedding with a nested `Options` (its fields, `declare(Fields&)`), made from those options.
//   2. Implement `quantity()`: what c_noise is; `declare_quantity()` makes it an option.
//   3. Implement `frequencies()`, drawn from `random` alone, and `features()`: [B] to [B, width], float32.
//   4. Let `random()` be true if the frequencies are drawn: they are then stored with the weights.
//   5. Put it into plugins/embeddings/NAME.cpp, which ends with `register_embedding_NAME`.
//   6. Read plugins/embeddings/fourier.cpp as an example; `brume new noise_embedding NAME` writes another.
//   7. Run test_contracts --gtest_filter='*NoiseEmbedding*NAME*' (tests/contracts/noise_embedding_test.cpp).
#include <string_view>

#include "brume/config/fields.h"
#include "brume/core/noise_schedule.h"
#include "brume/core/tensor.h"

namespace at {
struct Generator;
}

namespace brume {

/// The quantity that c_noise is.
enum class NoiseQuantity {
  timestep,     ///< the schedule's training time
  variance,     ///< sigma^2 / (1 + sigma^2), the noise power of a variance-preserving process
  log_snr,      ///< -2 log sigma
  quarter_log,  ///< log(sigma) / 4 (EDM)
  sigma         ///< sigma itself
};

/// Declares the option `input` of a noise embedding.
void declare_quantity(Fields& f, NoiseQuantity& value);
/// Returns c_noise at sigma.
double noise_quantity(NoiseQuantity quantity, double sigma, const NoiseSchedule& schedule);

/// Turns c_noise [B] into features [B, width]: cos and sin of c_noise times some frequencies.
class NoiseEmbedding {
 public:
  static constexpr std::string_view kind = "noise_embedding";
  virtual ~NoiseEmbedding() = default;
  virtual NoiseQuantity quantity() const = 0;
  /// Returns [width / 2] float32 angular frequencies; drawn ones are stored with the network's weights.
  virtual Tensor frequencies(int64_t width, at::Generator& random) const = 0;
  virtual bool random() const = 0;  ///< the frequencies are drawn
  /// Returns [B, width] float32. c_noise: [B]; frequencies: [width / 2].
  virtual Tensor features(const Tensor& c_noise, const Tensor& frequencies) const = 0;
};

}  // namespace brume
