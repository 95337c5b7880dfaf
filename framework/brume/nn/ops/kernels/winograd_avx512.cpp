#include <immintrin.h>

#include "brume/nn/ops/kernels/winograd_gradient_kernel.h"
#include "brume/nn/ops/kernels/winograd_kernel.h"

namespace brume::nn::kernels {
namespace winograd_on_avx512 {
#include "brume/nn/ops/kernels/winograd_body.h"

#include "brume/nn/ops/kernels/winograd_gradient_body.h"
}  // namespace winograd_on_avx512

const WinogradKernel& winograd_avx512() { return winograd_on_avx512::all; }
const WinogradGradientKernel& winograd_gradient_avx512() { return winograd_on_avx512::gradient::all; }

}  // namespace brume::nn::kernels
