#include "brume/interop/input_rotation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/inverse.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/triu_indices.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "brume/config/counted.h"

namespace brume {
namespace {

using at::Tensor;

/// Returns the side b of blocks whose upper triangles have `count` numbers, b (b - 1) / 2; 0 if no b does.
int64_t side_of(int64_t count) {
  const int64_t side = std::llround((1 + std::sqrt(1 + 8 * double(count))) / 2);
  return side * (side - 1) / 2 == count ? side : 0;
}

/// Returns the skew-symmetric blocks [n, b, b] of upper triangles [n, b (b - 1) / 2].
Tensor skew(const Tensor& triangles, int64_t side) {
  const Tensor places = at::triu_indices(side, side, 1), flat = places[0] * side + places[1];
  const Tensor upper =
      at::zeros({triangles.size(0), side * side}, triangles.options()).index_copy(1, flat, triangles).view({-1, side, side});
  return upper - upper.transpose(1, 2);
}

/// Returns s bounded to a norm of `bound` over the square root of the number of blocks, as constrained OFT has it.
Tensor bounded(const Tensor& s, double bound) {
  const double most = bound / std::sqrt(double(s.size(0)));
  const Tensor norm = s.norm(2, {1, 2}, true);
  return at::where(norm.le(most), s, s * (most / norm));
}

/// Returns (1 - S)(1 + S)^-1.
Tensor cayley(const Tensor& s) {
  const Tensor one = at::eye(s.size(-1), s.options());
  return at::matmul(one - s, at::inverse(one + s));
}

/// Returns 1 + 2 S + 2 S^2 + … + S^(terms - 1): the first terms of (1 + S)(1 - S)^-1, the last of them once. PEFT has no last one of two
/// terms, and takes four for three.
Tensor neumann(const Tensor& s, int64_t terms) {
  Tensor sum = at::eye(s.size(-1), s.options()).expand_as(s), power = s;
  if (terms == 2) return sum + s * 2;
  const int64_t count = terms == 3 ? 4 : terms;
  for (int64_t n = 1; n < count; ++n) {
    sum = sum + power * (n + 1 < count ? 2 : 1);
    power = at::matmul(power, s);
  }
  return sum;
}

/// Applies blocks [n, b, b] to rows [n b, out].
Tensor of_blocks(const Tensor& blocks, const Tensor& rows) {
  return at::matmul(blocks, rows.reshape({-1, blocks.size(-1), rows.size(1)})).reshape(rows.sizes());
}

/// Returns the rows that factor i of a butterfly brings together: of each group of 2^(i + 1) half blocks, those with even numbers, then
/// those with odd ones.
Tensor butterfly_order(int64_t rows, int64_t half, int64_t i) {
  const Tensor all = at::arange(rows, at::kLong).view({-1, int64_t(1) << i, 2, half});
  return at::cat({all.select(2, 0).flatten(1), all.select(2, 1).flatten(1)}, 1).flatten();
}

Tensor oft_turned(const WeightChange& c, const Tensor& rows) {
  const Tensor triangles = c.part("oft_R").to(at::kFloat);
  Tensor s = skew(triangles, side_of(triangles.size(1)));
  if (c.rotation_bound > 0) s = bounded(s, c.rotation_bound);
  Tensor r = c.neumann_terms > 0 ? neumann(s, c.neumann_terms) : cayley(s);
  if (r.size(0) == 1) r = r.expand({rows.size(0) / r.size(-1), -1, -1});
  return of_blocks(r, rows);
}

Tensor boft_turned(const WeightChange& c, Tensor rows) {
  const Tensor p = c.part("boft_R").to(at::kFloat), r = cayley((p - p.transpose(-1, -2)) * 0.5);
  for (int64_t i = 0; i < r.size(0); ++i) {
    if (i == 0) {  // its blocks stand together
      rows = of_blocks(r[i], rows);
      continue;
    }
    const Tensor order = butterfly_order(rows.size(0), r.size(-1) / 2, i);
    rows = of_blocks(r[i], at::zeros(rows.sizes(), rows.options()).index_copy(0, order, rows)).index_select(0, order);
  }
  const Tensor s = c.part("boft_s");
  return s.defined() ? rows * s.to(at::kFloat).reshape({1, -1}) : rows;
}

}  // namespace

bool is_input_rotation(const WeightChange& c) { return c.part("oft_R").defined() || c.part("boft_R").defined(); }

std::string rotation_problem(const WeightChange& c, at::IntArrayRef sizes) {
  int64_t inputs = 1;
  for (size_t i = 1; i < sizes.size(); ++i) inputs *= sizes[i];
  if (const Tensor r = c.part("oft_R"); r.defined()) {
    const int64_t side = r.dim() == 2 ? side_of(r.size(1)) : 0;
    if (side < 1 || inputs % side != 0 || (r.size(0) != 1 && r.size(0) * side != inputs))
      return fmt::format("oft_R [{}] does not turn {}", fmt::join(r.sizes(), ", "), counted(inputs, "input"));
    return {};
  }
  const Tensor r = c.part("boft_R"), s = c.part("boft_s");
  constexpr int64_t most_factors = 30;
  const bool shape =
      r.dim() == 4 && r.size(2) == r.size(3) && r.size(1) * r.size(2) == inputs && r.size(0) >= 1 && r.size(0) <= most_factors;
  if (!shape || (r.size(0) > 1 && (r.size(2) % 2 != 0 || r.size(1) % (int64_t(1) << (r.size(0) - 1)) != 0)))
    return fmt::format("boft_R [{}] does not turn {}", fmt::join(r.sizes(), ", "), counted(inputs, "input"));
  if (s.defined() && s.numel() != sizes[0])
    return fmt::format("boft_s has {} for {}", counted(s.numel(), "number"), counted(sizes[0], "output"));
  return {};
}

Tensor rotated(const WeightChange& c, const Tensor& weight) {
  const Tensor rows = weight.flatten(1).t();
  return (c.part("oft_R").defined() ? oft_turned(c, rows) : boft_turned(c, rows)).t().reshape(weight.sizes());
}

}  // namespace brume
