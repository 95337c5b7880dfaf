#pragma once
// Cosines and sines, the same bits whatever the batch.
#include <utility>

#include "brume/core/tensor.h"

namespace brume {

/// Returns cos and sin of float32 angles of any shape, value by value: LibTorch's vectorised loops round the last few values of a
/// tensor differently, so that a row would depend on how many there are.
std::pair<Tensor, Tensor> cos_sin(const Tensor& angles);

}  // namespace brume
