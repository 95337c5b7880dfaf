#pragma once
// What works on discrete data: the codes of a quantising first stage, as one-hot latents [B, K, H, W].
#include <cstdint>
#include <optional>
#include <string_view>

#include "brume/core/tensor.h"

namespace brume {

/// What a first stage with a codebook also is. `const` and safe from several threads.
class Quantiser {
 public:
  virtual ~Quantiser() = default;
  /// Returns the numbers of the codes, [B, h, w] int64. moments: those of Autoencoder::encode_moments.
  virtual Tensor codes_of(const Tensor& moments) const = 0;
  /// Returns images in [-1, 1], float32. codes: [B, h, w] int64.
  virtual Tensor decode_codes(const Tensor& codes) const = 0;
};

/// What a corrupted code becomes: any of the K, or a mask.
enum class CodeKernel { uniform, absorbing };

/// What a parameterization, an objective or a sampler also is if it works on codes.
class OfCodes {
 public:
  virtual ~OfCodes() = default;
  /// Returns the kernel that it is for; nothing if the model's decides.
  virtual std::optional<CodeKernel> kernel() const = 0;
};

/// Returns the plugin as one of codes; null if it works on continuous data.
template <class P>
const OfCodes* of_codes(const P& plugin) {
  return dynamic_cast<const OfCodes*>(&plugin);
}

inline std::string_view name_of(CodeKernel kernel) { return kernel == CodeKernel::uniform ? "uniform" : "absorbing"; }

}  // namespace brume
