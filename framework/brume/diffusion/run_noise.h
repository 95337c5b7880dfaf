#pragma once
// The noise of a run of sampling.
#include <memory>

#include "brume/core/noise.h"
#include "brume/diffusion/sampling_run.h"

namespace brume {

/// Returns the noise of images [first, first + count) of a request. `stream`: what is mixed into the seed; 0 = the seed as it is.
std::unique_ptr<Noise> noise_of(const SampleOptions& options, const SampleRequest& request, int64_t first, int64_t count,
                                uint64_t stream = 0);

/// Returns `noise` [B, C, H, W], the initial noise of images from `first` on, blended with that of the variation seed; as it is without
/// one.
Tensor varied(const Tensor& noise, const SampleOptions& options, const SampleRequest& request, int64_t first);

/// Interpolates on the sphere (Shoemake 1985): sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, w the angle between a and b over the
/// dimensions `over`; linear for angles near 0. Returns a at t = 0.
Tensor slerp(const Tensor& a, const Tensor& b, double t, at::IntArrayRef over);

}  // namespace brume
