#include "brume/nn/ops/kernels/token_kernel.h"

namespace brume::nn::kernels {
namespace tokens_on_generic {
#include "brume/nn/ops/kernels/token_body.h"
}  // namespace tokens_on_generic

const TokenKernels& tokens_generic() { return tokens_on_generic::all; }

}  // namespace brume::nn::kernels
