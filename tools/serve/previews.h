#pragma once
// Pictures of an image that is being made.
#include <memory>
#include <string>
#include <utility>

#include "brume/core/autoencoder.h"
#include "brume/model.h"

namespace brume::tools {

class Previews {
 public:
  /// Makes previews. `tiny`: a small first stage with the model's latents; null = none.
  explicit Previews(std::shared_ptr<const Autoencoder> tiny = nullptr) : tiny_(std::move(tiny)) {}

  /// Returns a PNG of row `row` of the batch's x0: of pixels, x0 itself; of latents, what the small first stage decodes, or a linear
  /// approximation of what the model's own decodes, fitted by least squares when it is needed first.
  std::string png(const Model& model, const SampleProgress& progress, int64_t row) const;

 private:
  std::shared_ptr<const Autoencoder> tiny_;
  mutable Tensor map_;  ///< [C + 1, channels]: from a latent and 1 to a pixel
};

}  // namespace brume::tools
