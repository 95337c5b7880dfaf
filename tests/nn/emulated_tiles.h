#pragma once
#include "brume/nn/ops/kernels/attention_kernel.h"

namespace brume::test {

/// attention_tiles.h on tiles that are arrays, for processors that have no AMX but AVX512-BF16. False if it refuses.
bool attention_on_emulated_tiles(const nn::kernels::AttentionHead& head);

}  // namespace brume::test
