#include "brume/nn/blocks/patch_positions.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <ATen/ops/upsample_trilinear3d.h>

#include <cmath>
#include <vector>

namespace brume::nn {
namespace {

/// Returns 10000^(-i / count), i = 0 ... count - 1.
std::vector<double> frequencies(int64_t count) {
  std::vector<double> all;
  for (int64_t i = 0; i < count; ++i) all.push_back(std::pow(10000.0, -double(i) / double(count)));
  return all;
}

/// Position of a patch along each axis.
struct Place {
  double slice, row, column;
};

/// Calls f(token, place) for every patch.
template <class F>
void for_patches(const PatchGrid& grid, const PatchGrid& made_for, const F& f) {
  const double high = double(made_for.rows) / double(grid.rows), wide = double(made_for.columns) / double(grid.columns);
  const double deep = double(made_for.slices) / double(grid.slices);
  for (int64_t i = 0; i < grid.count(); ++i)
    f(i,
      Place{double(i / (grid.rows * grid.columns)) * deep, double(i / grid.columns % grid.rows) * high, double(i % grid.columns) * wide});
}

}  // namespace

Tensor sine_positions(const PatchGrid& grid, const PatchGrid& made_for, int64_t width, double scale) {
  const int64_t axes = made_for.slices > 1 ? 3 : 2, part = width / (2 * axes);
  const std::vector<double> rates = frequencies(part);
  const Tensor table = at::empty({grid.count(), width}, at::kFloat);
  float* const values = table.data_ptr<float>();
  for_patches(grid, made_for, [&](int64_t token, const Place& p) {
    const double along[] = {p.column / scale, p.row / scale, p.slice / scale};
    for (int64_t axis = 0; axis < axes; ++axis) {
      float* const here = values + token * width + 2 * part * axis;
      for (int64_t i = 0; i < part; ++i) {
        here[i] = float(std::sin(along[axis] * rates[size_t(i)]));
        here[part + i] = float(std::cos(along[axis] * rates[size_t(i)]));
      }
    }
  });
  return table;
}

Tensor resized_positions(const Tensor& table, const PatchGrid& grid, const PatchGrid& made_for) {
  if (grid == made_for) return table;
  const int64_t width = table.size(2);
  if (made_for.slices > 1) {
    const Tensor volume = table.view({1, made_for.slices, made_for.rows, made_for.columns, width}).permute({0, 4, 1, 2, 3});
    return at::upsample_trilinear3d(volume, {grid.slices, grid.rows, grid.columns}, false)
        .permute({0, 2, 3, 4, 1})
        .reshape({1, grid.count(), width});
  }
  const Tensor image = table.view({1, made_for.rows, made_for.columns, width}).permute({0, 3, 1, 2});
  return at::upsample_bilinear2d(image, {grid.rows, grid.columns}, false).permute({0, 2, 3, 1}).reshape({1, grid.count(), width});
}

RotaryTable rotary_table(const PatchGrid& grid, const PatchGrid& made_for, int64_t head) {
  const int64_t axes = made_for.slices > 1 ? 3 : 2, part = head / (2 * axes), half = axes * part;
  const std::vector<double> rates = frequencies(part);
  const RotaryTable table{at::empty({grid.count(), half}, at::kFloat), at::empty({grid.count(), half}, at::kFloat)};
  float *const cosines = table.cosines.data_ptr<float>(), *const sines = table.sines.data_ptr<float>();
  for_patches(grid, made_for, [&](int64_t token, const Place& p) {
    const double along[] = {p.slice, p.row, p.column};
    for (int64_t i = 0; i < half; ++i) {
      const double angle = along[i / part + 3 - axes] * rates[size_t(i % part)];
      cosines[token * half + i] = float(std::cos(angle));
      sines[token * half + i] = float(std::sin(angle));
    }
  });
  return table;
}

}  // namespace brume::nn
