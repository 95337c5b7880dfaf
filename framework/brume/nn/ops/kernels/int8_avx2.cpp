#include <immintrin.h>

#include "brume/nn/ops/kernels/int8_kernel.h"

namespace brume::nn::kernels {
namespace int8_on_avx2 {
#include "brume/nn/ops/kernels/int8_body.h"
}  // namespace int8_on_avx2

const Int8Kernel& int8_avx2() { return int8_on_avx2::all; }

}  // namespace brume::nn::kernels
