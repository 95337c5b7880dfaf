#include "brume/numerics/waves.h"

#include <ATen/ops/empty_like.h>

#include <cmath>

namespace brume {

std::pair<Tensor, Tensor> cos_sin(const Tensor& angles) {
  if (!angles.device().is_cpu() || angles.scalar_type() != at::kFloat) return {angles.cos(), angles.sin()};
  const Tensor dense = angles.contiguous(), cosines = at::empty_like(dense), sines = at::empty_like(dense);
  const float* a = dense.data_ptr<float>();
  float *c = cosines.data_ptr<float>(), *s = sines.data_ptr<float>();
  for (int64_t i = 0; i < dense.numel(); ++i) c[i] = std::cos(a[i]), s[i] = std::sin(a[i]);
  return {cosines, sines};
}

}  // namespace brume
