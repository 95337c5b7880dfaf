#include "brume/nn/blocks/pooling.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>

#include <cmath>

#include "brume/nn/ops/ops.h"

namespace brume::nn {

// As pooling and not as a mean over dimensions, whose order of summation depends on the batch.
Tensor mean_pool(const Tensor& x) { return at::avg_pool2d(x, {x.size(2), x.size(3)}).flatten(1); }

AttentionPool::AttentionPool(const Builder& build, int64_t channels, int64_t positions, int64_t heads) : heads_(heads) {
  places_ = build.normal("positional_embedding", {channels, positions + 1}, 1 / std::sqrt(double(channels)));
  qkv_ = build.conv1x1("qkv_proj", channels, 3 * channels);
}

SpatialPool::SpatialPool(const Builder& build, int64_t channels, bool normed) : linear_(build.linear("0", channels, features)) {
  if (normed) norm_ = build.group_norm("1", features);
}

Tensor SpatialPool::operator()(const Tensor& means) const {
  const Tensor y = linear_(means);
  return norm_ ? norm_->silu(y.unsqueeze(-1).unsqueeze(-1)).flatten(1) : y.relu();
}

Tensor AttentionPool::operator()(const Tensor& x) const {
  const int64_t b = x.size(0), c = x.size(1), n = x.size(2) * x.size(3) + 1;
  const Tensor tokens = at::cat({mean_pool(x).unsqueeze(1), x.permute({0, 2, 3, 1}).reshape({b, n - 1, c})}, 1) +
                        places_.t().to(x.scalar_type());                          // [B, N, C]
  const Tensor rows = qkv_(tokens.permute({0, 2, 1}).unsqueeze(-1)).squeeze(-1);  // [B, 3C, N]
  const Tensor qkv = rows.reshape({b, 3, heads_, c / heads_, n}).permute({1, 0, 2, 4, 3});
  return attention(qkv[0].narrow(2, 0, 1), qkv[1], qkv[2]).reshape({b, c});
}

}  // namespace brume::nn
