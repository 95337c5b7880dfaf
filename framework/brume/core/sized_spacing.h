#pragma once
// A spacing whose noise levels depend on the size of the images.
#include <memory>

#include "brume/core/dataset.h"
#include "brume/core/spacing.h"

namespace brume {

class SizedSpacing : public Spacing {
 public:
  /// Returns the spacing for latents of this shape; sigmas() of this one are those of a size that is not known.
  virtual std::shared_ptr<const Spacing> for_size(const ImageShape& latent) const = 0;
};

}  // namespace brume
