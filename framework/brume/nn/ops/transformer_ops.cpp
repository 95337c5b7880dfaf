#include "brume/nn/ops/transformer_ops.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>

#include "brume/nn/ops/op_profile.h"
#include "brume/nn/ops/ops.h"

namespace brume::nn {
namespace {

at::ScalarType wide_type(const Tensor& x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

/// Row by row, with sums in an order that depends on the width alone: LibTorch's depend on the number of rows.
template <class T>
void normalize_rows(const Tensor& x, const Tensor& weight, const Tensor& y, double eps) {
  constexpr int64_t lanes = 16;
  const int64_t width = x.size(-1), rows = width > 0 ? x.numel() / width : 0;
  const T *from = x.data_ptr<T>(), *w = weight.defined() ? weight.data_ptr<T>() : nullptr;
  T* const to = y.data_ptr<T>();
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* const in = from + r * width;
      T* const out = to + r * width;
      T sums[lanes] = {}, sum = 0;
      for (int64_t i = 0; i < width; ++i) sums[i % lanes] += in[i] * in[i];
      for (const T part : sums) sum += part;
      const T factor = 1 / std::sqrt(sum / T(width) + T(eps));
      for (int64_t i = 0; i < width; ++i) out[i] = in[i] * factor * (w ? w[i] : T(1));
    }
  });
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  const OpTimer timer("rms_norm");
  const Tensor wide = x.to(wide_type(x)), w = weight.defined() ? weight.to(wide.scalar_type()) : weight;
  const bool recorded = at::GradMode::is_enabled() && (x.requires_grad() || (w.defined() && w.requires_grad()));
  if (recorded || !x.device().is_cpu()) {
    const Tensor y = wide * (wide * wide).mean({-1}, true).add(eps).rsqrt();
    return (w.defined() ? y * w : y).to(x.scalar_type());
  }
  const Tensor dense = wide.contiguous(), y = at::empty_like(dense), dense_weight = w.defined() ? w.contiguous() : w;
  if (wide.scalar_type() == at::kDouble)
    normalize_rows<double>(dense, dense_weight, y, eps);
  else
    normalize_rows<float>(dense, dense_weight, y, eps);
  return y.to(x.scalar_type());
}

Tensor swiglu(const Tensor& x) {
  const int64_t half = x.size(-1) / 2;
  return nn::silu(x.narrow(-1, 0, half).contiguous()) * x.narrow(-1, half, half);
}

Tensor modulate(const Tensor& x, const Tensor& scale, const Tensor& shift) {
  const OpTimer timer("modulate");
  return x * (scale + 1).unsqueeze(1) + shift.unsqueeze(1);
}

Tensor rotate(const Tensor& x, const Tensor& cosines, const Tensor& sines) {
  const OpTimer timer("rotate");
  std::vector<int64_t> pairs = x.sizes().slice(0, size_t(x.dim()) - 1).vec();
  pairs.insert(pairs.end(), {x.size(-1) / 2, 2});
  const Tensor wide = x.to(wide_type(x)).reshape(pairs), a = wide.select(-1, 0), b = wide.select(-1, 1);
  const Tensor cos = cosines.to(wide.options()), sin = sines.to(wide.options());
  return at::stack({a * cos - b * sin, b * cos + a * sin}, -1).reshape(x.sizes()).to(x.scalar_type());
}

}  // namespace brume::nn
