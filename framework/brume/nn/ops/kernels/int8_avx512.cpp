#include <immintrin.h>

#include "brume/nn/ops/kernels/int8_kernel.h"

namespace brume::nn::kernels {
namespace int8_on_avx512 {
#include "brume/nn/ops/kernels/int8_body.h"
}  // namespace int8_on_avx512

const Int8Kernel& int8_avx512() { return int8_on_avx512::all; }

}  // namespace brume::nn::kernels
