#pragma once
// Numbers per image. They are computed image by image: a reduction over rows rounds by the number of rows.
#include <functional>

#include "brume/core/tensor.h"

namespace brume {

/// Returns one number per image, of shape [B, 1, ...] with the rank of `like`; `number` returns a scalar tensor.
Tensor per_image(const Tensor& like, const std::function<Tensor(int64_t image)>& number);
Tensor image_dot(const Tensor& a, const Tensor& b);
Tensor image_norm(const Tensor& t);
/// Returns the standard deviation with divisor n - 1; 0 if it is that of rounding, as of an image of one value on some processors.
Tensor image_std(const Tensor& t);
/// Returns the part of `t` that is parallel to `onto`, per image; 0 if that is 0.
Tensor image_parallel(const Tensor& t, const Tensor& onto);
/// Returns `guided` with the spread of `with`, mixed by the share phi (Lin et al. 2024, sec. 3.4).
Tensor rescaled_to(const Tensor& guided, const Tensor& with, double phi);

}  // namespace brume
