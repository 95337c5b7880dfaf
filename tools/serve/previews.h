#pragma once
// Pictures of an image that is being made.
#include <string>

#include "brume/model.h"

namespace brume::tools {

class Previews {
 public:
  /// Returns a PNG of row `row` of the batch's x0: of pixels, x0 itself; of latents, a linear approximation of what they decode to, fitted
  /// to this model by least squares when it is needed first; of a tiny first stage, what it decodes.
  std::string png(const Model& model, const SampleProgress& progress, int64_t row) const;

 private:
  mutable Tensor map_;  ///< [C + 1, channels]: from a latent and 1 to a pixel
};

}  // namespace brume::tools
