#pragma once
// How near one image is to another.
#include "brume/core/tensor.h"

namespace brume {

/// Returns values in [-1, 1] as a picture of 8 bits holds them.
Tensor as_8_bits(const Tensor& images);

/// Returns the same as bytes: uint8, on the device of the images.
Tensor byte_values(const Tensor& images);

/// Returns the peak signal-to-noise ratio in dB, 10 log10(peak^2 / mean squared error) with a peak of 2, as [B] float64; 100 if the two are
/// equal. a, b: images [B, C, H, W] in [-1, 1].
Tensor psnr(const Tensor& a, const Tensor& b);

/// Returns the structural similarity, [B] float64 (Wang et al. 2004, "Image quality assessment: from error visibility to structural
/// similarity", eq. 13), with the paper's window (Gaussian, 11 x 11, sigma 1.5, inside the image only) and constants (K1 = 0.01, K2 =
/// 0.03), mean over the channels and positions. On images with a side under 11 the window is cut to the largest odd side that fits. Shapes
/// as above.
Tensor ssim(const Tensor& a, const Tensor& b);

}  // namespace brume
