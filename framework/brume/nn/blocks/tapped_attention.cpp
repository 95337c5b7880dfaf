#include "brume/nn/blocks/tapped_attention.h"

#include "brume/nn/ops/ops.h"

namespace brume::nn {

Tensor split_heads(const Tensor& x, int64_t heads) { return x.view({x.size(0), x.size(1), heads, x.size(2) / heads}).transpose(1, 2); }
Tensor merge_heads(const Tensor& x) { return x.transpose(1, 2).reshape({x.size(0), x.size(2), x.size(1) * x.size(3)}); }

Tensor tapped_attention(const Taps* taps, const std::string& name, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask) {
  if (taps)
    if (const auto found = taps->attention.find(name); found != taps->attention.end()) return found->second(q, k, v);
  return attention(q, k, v, {mask});
}

}  // namespace brume::nn
