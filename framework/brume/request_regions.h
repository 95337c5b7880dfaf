#pragma once
// The masks of a request's prompts side by side.
#include <vector>

#include "brume/diffusion/options.h"
#include "brume/request.h"

namespace brume {

/// Returns [parts, 1, H, W] in [0, 1] of ImageRequest::regions for images of this shape; undefined if there are none. Throws ConfigError if
/// a prompt of `images` has another number of parts, or if `options` do not read them.
Tensor regions_of(const ImageRequest& request, const SampleOptions& options, const std::vector<Annotation>& images,
                  const ImageShape& shape);

}  // namespace brume
