#pragma once
#include <ATen/core/Tensor.h>

namespace brume {
using at::Tensor;
}
