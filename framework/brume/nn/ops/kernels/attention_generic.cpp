#include "brume/nn/ops/kernels/attention_kernel.h"

namespace brume::nn::kernels {
namespace attention_on_generic {
#include "brume/nn/ops/kernels/attention_body.h"
}  // namespace attention_on_generic

void attention_generic(const AttentionHead& head, bool bf16) {
  if (bf16)
    attention_on_generic::attend<uint16_t>(head);
  else
    attention_on_generic::attend<float>(head);
}

}  // namespace brume::nn::kernels
