#include "brume/nn/ops/kernels/token_kernel.h"

namespace brume::nn::kernels {
namespace tokens_on_avx2 {
#include "brume/nn/ops/kernels/token_body.h"
}  // namespace tokens_on_avx2

const TokenKernels& tokens_avx2() { return tokens_on_avx2::all; }

}  // namespace brume::nn::kernels
