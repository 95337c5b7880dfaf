#include "brume/nn/ops/kernels/token_kernel.h"

namespace brume::nn::kernels {
namespace tokens_on_avx512 {
#include "brume/nn/ops/kernels/token_body.h"
}  // namespace tokens_on_avx512

const TokenKernels& tokens_avx512() { return tokens_on_avx512::all; }

}  // namespace brume::nn::kernels
