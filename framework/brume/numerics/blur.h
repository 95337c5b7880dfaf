#pragma once
// What guidances do to images and to the tokens of an image.
#include <optional>
#include <utility>

#include "brume/core/tensor.h"

namespace brume {

/// Blurs x, [B, C, H, W], by a Gaussian of this standard deviation, cut off `reach` pixels away, with reflected borders. The bits of an
/// image do not depend on its batch.
Tensor gaussian_blur(const Tensor& x, double deviation, int64_t reach);

/// Returns height and width of an image of n tokens whose height is `ratio` times its width; nothing if n is not that of such an image.
std::optional<std::pair<int64_t, int64_t>> token_grid(int64_t n, double ratio);

}  // namespace brume
