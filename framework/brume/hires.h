#pragma once
// A second pass at a higher resolution: images are sampled, enlarged, and sampled again from noise that leaves their composition.
#include "brume/model.h"

namespace brume {

/// Returns the images of `request`, whose `hires` is set. Throws ConfigError if the two passes cannot be made.
Tensor sample_hires(const Model& model, const ImageRequest& request);

}  // namespace brume
