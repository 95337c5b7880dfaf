#include "brume/nn/ops/kernels/attention_kernel.h"

namespace brume::nn::kernels {
namespace attention_on_avx512 {
#include "brume/nn/ops/kernels/attention_body.h"
}  // namespace attention_on_avx512

void attention_avx512(const AttentionHead& head, bool bf16) {
  if (bf16)
    attention_on_avx512::attend<uint16_t>(head);
  else
    attention_on_avx512::attend<float>(head);
}

}  // namespace brume::nn::kernels
