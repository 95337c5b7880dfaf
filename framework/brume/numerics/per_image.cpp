#include "brume/numerics/per_image.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/std.h>

#include <limits>
#include <vector>

namespace brume {

Tensor per_image(const Tensor& like, const std::function<Tensor(int64_t)>& number) {
  std::vector<Tensor> numbers;
  for (int64_t i = 0; i < like.size(0); ++i) numbers.push_back(number(i));
  std::vector<int64_t> shape(size_t(like.dim()), 1);
  shape[0] = like.size(0);
  return at::stack(numbers).view(shape);
}

Tensor image_dot(const Tensor& a, const Tensor& b) {
  return per_image(a, [&](int64_t i) { return (a[i] * b[i]).sum(); });
}
Tensor image_norm(const Tensor& t) { return image_dot(t, t).sqrt(); }
Tensor image_std(const Tensor& t) {
  const double rounding =
      4 * (t.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon());
  return per_image(t, [&](int64_t i) {
    const Tensor values = t[i].reshape({-1}), deviation = values.std();
    return deviation.masked_fill(deviation <= values.abs().max() * rounding, 0);
  });
}

Tensor image_parallel(const Tensor& t, const Tensor& onto) {
  const Tensor size = image_dot(onto, onto);
  return onto * (image_dot(t, onto) / size).masked_fill(size == 0, 0);
}

Tensor rescaled_to(const Tensor& guided, const Tensor& with, double phi) {
  const Tensor spread = image_std(guided), ratio = (image_std(with) / spread).masked_fill(spread == 0, 1);
  return guided * (ratio * phi + (1 - phi));
}

}  // namespace brume
