#include <immintrin.h>

#include "brume/nn/ops/kernels/winograd_gradient_kernel.h"
#include "brume/nn/ops/kernels/winograd_kernel.h"

namespace brume::nn::kernels {
namespace winograd_on_avx2 {
#include "brume/nn/ops/kernels/winograd_body.h"

#include "brume/nn/ops/kernels/winograd_gradient_body.h"
}  // namespace winograd_on_avx2

const WinogradKernel& winograd_avx2() { return winograd_on_avx2::all; }
const WinogradGradientKernel& winograd_gradient_avx2() { return winograd_on_avx2::gradient::all; }

}  // namespace brume::nn::kernels
