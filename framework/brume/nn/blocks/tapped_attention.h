#pragma once
#include <string>

#include "brume/core/taps.h"

namespace brume::nn {

/// Returns attention(q, k, v) with the mask of its keys ([B, M], undefined = none), or what `taps` (null = none) put in its place at
/// the block `name`. Sizes as in nn::attention: [B, heads, N, d].
Tensor tapped_attention(const Taps* taps, const std::string& name, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& mask = {});

}  // namespace brume::nn
