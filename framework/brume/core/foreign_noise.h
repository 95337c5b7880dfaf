#pragma once
// Noise as other programs draw it, from their seeds.
#include <cstdint>
#include <memory>

#include "brume/core/noise.h"

namespace brume {

/// Returns N(0, 1) of the shape of `like` in float32 on the host: draw number `draw`, from 0, of torch.randn on CUDA with this seed. Philox
/// 4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3") with one subsequence per number, then Box and Muller. The
/// numbers are those of CUDA for tensors of at most as many numbers as the device runs threads.
Tensor cuda_normal(uint64_t seed, uint32_t draw, at::IntArrayRef shape);

/// Returns one generator and one draw over the whole batch: PyTorch's on CUDA.
std::unique_ptr<Noise> cuda_batch_noise(uint64_t seed);

/// Returns one generator per image, that of image i from seed + i, as A1111 has it; `first` is the index of the first image of the batch.
/// `cuda`: PyTorch's on CUDA, else on the processor.
std::unique_ptr<Noise> seed_noise(uint64_t seed, int64_t first, bool cuda);

}  // namespace brume
