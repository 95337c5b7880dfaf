#pragma once
#include <string>

#include "brume/core/taps.h"

namespace brume::nn {

/// Returns [B, N, heads d] as [B, heads, N, d], a view.
Tensor split_heads(const Tensor& x, int64_t heads);
/// Returns [B, heads, N, d] as [B, N, heads d].
Tensor merge_heads(const Tensor& x);

/// Returns attention(q, k, v) with the mask of its keys ([B, M], undefined = none), or what `taps` (null = none) put in its place at
/// the block `name`. Sizes as in nn::attention: [B, heads, N, d].
Tensor tapped_attention(const Taps* taps, const std::string& name, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& mask = {});

}  // namespace brume::nn
