#include "brume/core/int8_values.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/round.h>
#include <ATen/ops/where.h>

#include <vector>

namespace brume {
namespace {

/// Returns the scales along the output channels, in front of the other dimensions.
Tensor per_channel(const Tensor& scales, const Tensor& like) {
  std::vector<int64_t> shape(size_t(like.dim()), 1);
  shape[0] = like.size(0);
  return scales.view(shape);
}

}  // namespace

Int8Values int8_values(const Tensor& weight) {
  const Tensor wide = weight.to(at::kFloat);
  const Tensor greatest = wide.reshape({weight.size(0), -1}).abs().amax(1), scales = greatest / double(int8_greatest);
  const Tensor steps = at::where(greatest > 0, scales, at::ones_like(scales));
  return {(wide / per_channel(steps, wide)).round().clamp(-int8_greatest, int8_greatest).to(at::kChar), scales};
}

Tensor from_int8(const Int8Values& values) { return values.values.to(at::kFloat) * per_channel(values.scales, values.values); }

}  // namespace brume
