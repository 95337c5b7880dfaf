#include "brume/numerics/blur.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/reflection_pad2d.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace brume {

Tensor gaussian_blur(const Tensor& x, double deviation, int64_t reach) {
  reach = std::min(reach, std::min(x.size(2), x.size(3)) - 1);
  if (reach < 1) return x;
  std::vector<double> line;
  double sum = 0;
  for (int64_t i = -reach; i <= reach; ++i) sum += line.emplace_back(std::exp(-0.5 * double(i * i) / (deviation * deviation)));
  const auto along = [&](const Tensor& t, int64_t dim, int64_t length) {
    Tensor blurred;
    for (size_t i = 0; i < line.size(); ++i) {
      const Tensor part = t.narrow(dim, int64_t(i), length) * (line[i] / sum);
      blurred = blurred.defined() ? blurred + part : part;
    }
    return blurred;
  };
  return along(along(at::reflection_pad2d(x, {reach, reach, reach, reach}), 2, x.size(2)), 3, x.size(3));
}

std::optional<std::pair<int64_t, int64_t>> token_grid(int64_t n, double ratio) {
  const int64_t rows = std::max<int64_t>(1, std::lround(std::sqrt(double(n) * ratio))), columns = n / rows;
  return rows * columns == n ? std::optional(std::pair(rows, columns)) : std::nullopt;
}

}  // namespace brume
