#include "brume/nn/blocks/patch_positions.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/upsample_bilinear2d.h>

#include <cmath>
#include <vector>

namespace brume::nn {
namespace {

/// 10000^(-i / count), i = 0 ... count - 1.
std::vector<double> frequencies(int64_t count) {
  std::vector<double> all;
  for (int64_t i = 0; i < count; ++i) all.push_back(std::pow(10000.0, -double(i) / double(count)));
  return all;
}

/// Calls f(token, row, column) for every patch, with its position.
template <class F>
void for_patches(const PatchGrid& grid, const PatchGrid& made_for, const F& f) {
  const double high = double(made_for.rows) / double(grid.rows), wide = double(made_for.columns) / double(grid.columns);
  for (int64_t i = 0; i < grid.count(); ++i) f(i, double(i / grid.columns) * high, double(i % grid.columns) * wide);
}

}  // namespace

Tensor sine_positions(const PatchGrid& grid, const PatchGrid& made_for, int64_t width, double scale) {
  const int64_t quarter = width / 4;
  const std::vector<double> rates = frequencies(quarter);
  const Tensor table = at::empty({grid.count(), width}, at::kFloat);
  float* const values = table.data_ptr<float>();
  for_patches(grid, made_for, [&](int64_t token, double row, double column) {
    row /= scale, column /= scale;
    float* const here = values + token * width;
    for (int64_t i = 0; i < quarter; ++i) {
      here[i] = float(std::sin(column * rates[size_t(i)]));
      here[quarter + i] = float(std::cos(column * rates[size_t(i)]));
      here[2 * quarter + i] = float(std::sin(row * rates[size_t(i)]));
      here[3 * quarter + i] = float(std::cos(row * rates[size_t(i)]));
    }
  });
  return table;
}

Tensor resized_positions(const Tensor& table, const PatchGrid& grid, const PatchGrid& made_for) {
  if (grid == made_for) return table;
  const int64_t width = table.size(2);
  const Tensor image = table.view({1, made_for.rows, made_for.columns, width}).permute({0, 3, 1, 2});
  return at::upsample_bilinear2d(image, {grid.rows, grid.columns}, false).permute({0, 2, 3, 1}).reshape({1, grid.count(), width});
}

RotaryTable rotary_table(const PatchGrid& grid, const PatchGrid& made_for, int64_t head) {
  const int64_t quarter = head / 4;
  const std::vector<double> rates = frequencies(quarter);
  const RotaryTable table{at::empty({grid.count(), 2 * quarter}, at::kFloat), at::empty({grid.count(), 2 * quarter}, at::kFloat)};
  float *const cosines = table.cosines.data_ptr<float>(), *const sines = table.sines.data_ptr<float>();
  for_patches(grid, made_for, [&](int64_t token, double row, double column) {
    for (int64_t i = 0; i < 2 * quarter; ++i) {
      const double angle = (i < quarter ? row : column) * rates[size_t(i % quarter)];
      cosines[token * 2 * quarter + i] = float(std::cos(angle));
      sines[token * 2 * quarter + i] = float(std::sin(angle));
    }
  });
  return table;
}

}  // namespace brume::nn
