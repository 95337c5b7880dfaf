#pragma once
// How a network is told the noise level.
#include <string_view>

#include "brume/config/fields.h"
#include "brume/core/noise_schedule.h"
#include "brume/core/tensor.h"

namespace at {
struct Generator;
}

namespace brume {

/// The quantity a network is told (c_noise).
enum class NoiseQuantity {
  timestep,     ///< the schedule's training time
  variance,     ///< sigma^2 / (1 + sigma^2), the noise power of a variance-preserving process
  log_snr,      ///< -2 log sigma
  quarter_log,  ///< log(sigma) / 4 (EDM)
  sigma         ///< sigma itself
};

/// The option `input` of a noise embedding.
void declare_quantity(Fields& f, NoiseQuantity& value);
/// c_noise at sigma.
double noise_quantity(NoiseQuantity quantity, double sigma, const NoiseSchedule& schedule);

/// Turns c_noise [B] into features [B, width]: cos and sin of c_noise times some frequencies.
class NoiseEmbedding {
 public:
  static constexpr std::string_view kind = "noise_embedding";
  virtual ~NoiseEmbedding() = default;
  virtual NoiseQuantity quantity() const = 0;
  /// [width / 2] float32 angular frequencies; random ones are kept with the network's weights.
  virtual Tensor frequencies(int64_t width, at::Generator& random) const = 0;
  virtual bool random() const = 0;
  /// [B] and [width / 2] to [B, width] float32.
  virtual Tensor features(const Tensor& c_noise, const Tensor& frequencies) const = 0;
};

}  // namespace brume
