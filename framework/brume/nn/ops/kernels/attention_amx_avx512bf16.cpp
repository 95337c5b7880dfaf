// attention_tiles.h on the tiles of AMX-BF16.
#include "brume/nn/ops/kernels/amx.h"
#include "brume/nn/ops/kernels/attention_tiles.h"

namespace brume::nn::kernels {

void attention_amx(const AttentionHead& h) {
  if (!attention_by_tiles<Amx>(h)) attention_avx512bf16(h);
}

}  // namespace brume::nn::kernels
