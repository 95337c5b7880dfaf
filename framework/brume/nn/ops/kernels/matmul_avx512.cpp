#include <immintrin.h>

#include "brume/nn/ops/kernels/matmul_kernel.h"
#include "brume/nn/ops/kernels/transpose.h"

namespace brume::nn::kernels {
namespace matmul_on_avx512 {
#include "brume/nn/ops/kernels/matmul_body.h"
}  // namespace matmul_on_avx512

const MatmulKernel& matmul_avx512() { return matmul_on_avx512::all; }

}  // namespace brume::nn::kernels
