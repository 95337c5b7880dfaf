#include <immintrin.h>

#include "brume/nn/ops/kernels/int8_kernel.h"

namespace brume::nn::kernels {
namespace int8_on_avx512vnni {
#include "brume/nn/ops/kernels/int8_body.h"
}  // namespace int8_on_avx512vnni

const Int8Kernel& int8_avx512vnni() { return int8_on_avx512vnni::all; }

}  // namespace brume::nn::kernels
