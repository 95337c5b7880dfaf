#include "brume/nn/blocks/tapped_attention.h"

#include "brume/nn/ops/ops.h"

namespace brume::nn {

Tensor tapped_attention(const Taps* taps, const std::string& name, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask) {
  if (taps)
    if (const auto found = taps->attention.find(name); found != taps->attention.end()) return found->second(q, k, v);
  return attention(q, k, v, {mask});
}

}  // namespace brume::nn
