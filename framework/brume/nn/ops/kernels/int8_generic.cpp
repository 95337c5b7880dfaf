#include "brume/nn/ops/kernels/int8_kernel.h"

namespace brume::nn::kernels {
namespace int8_on_generic {
#include "brume/nn/ops/kernels/int8_body.h"
}  // namespace int8_on_generic

const Int8Kernel& int8_generic() { return int8_on_generic::all; }

}  // namespace brume::nn::kernels
