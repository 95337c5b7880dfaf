// nn::layer_norm and nn::geglu: kernels on the CPU, LibTorch's operations elsewhere and for gradients of gradients.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/layer_norm.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "nn/isa.h"
#include "nn/kernels/token_kernel.h"
#include "nn/op_profile.h"
#include "nn/ops.h"

namespace brume::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The kernels for x; null where there are none.
const kernels::TokenKernel* token_kernel(const Tensor& x) {
  if (isa() == Isa::reference || !x.device().is_cpu()) return nullptr;
  const kernels::TokenKernels* all = &kernels::tokens_generic();
#if defined(__x86_64__)
  if (isa() == Isa::avx2) all = &kernels::tokens_avx2();
  if (isa() >= Isa::avx512) all = &kernels::tokens_avx512();
#endif
  return x.scalar_type() == at::kFloat ? &all->float32 : x.scalar_type() == at::kBFloat16 ? &all->bfloat16 : nullptr;
}

/// call(first, count) for rows shared among threads.
template <class F>
void for_rows(const Tensor& x, const F& call) {
  const int64_t width = x.size(-1), rows = width > 0 ? x.numel() / width : 0;
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width)),
                   [&](int64_t begin, int64_t end) { call(begin, end - begin); });
}
/// Where a row of a dense tensor is.
char* row(const Tensor& t, int64_t index) { return static_cast<char*>(t.data_ptr()) + index * t.size(-1) * t.element_size(); }

Tensor gated(const Tensor& x, const kernels::TokenKernel& kernel) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() /= 2;
  const Tensor y = at::empty(sizes, x.options());
  for_rows(x, [&](int64_t first, int64_t count) { kernel.geglu(row(x, first), row(y, first), count, y.size(-1)); });
  return y;
}

Tensor gated(const Tensor& x) {
  const int64_t half = x.size(-1) / 2;
  return x.narrow(-1, 0, half) * at::gelu(x.narrow(-1, half, half));
}

/// gelu is computed again in the backward pass rather than kept.
struct Geglu final : torch::autograd::Function<Geglu> {
  static Tensor forward(AutogradContext* context, const Tensor& x) {
    context->save_for_backward({x});
    return gated(x, *token_kernel(x));
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const Tensor x = context->get_saved_variables()[0], dy = grads[0].contiguous();
    const kernels::TokenKernel* kernel = token_kernel(x);
    if (at::GradMode::is_enabled() || !kernel) {  // a gradient of the gradient is wanted: by way of x
      const int64_t half = x.size(-1) / 2;
      const Tensor a = x.narrow(-1, 0, half), gate = x.narrow(-1, half, half);
      return {at::cat({dy * at::gelu(gate), at::gelu_backward(dy * a, gate)}, -1)};
    }
    const Tensor dx = at::empty_like(x);
    for_rows(x, [&](int64_t first, int64_t count) {
      kernel->geglu_gradient(row(x, first), row(dy, first), row(dx, first), count, dy.size(-1));
    });
    return {dx};
  }
};

}  // namespace

Tensor geglu(const Tensor& x) {
  const OpTimer timer("geglu");
  const kernels::TokenKernel* kernel = token_kernel(x);
  if (!kernel) return gated(x);
  const Tensor dense = x.contiguous();
  return at::GradMode::is_enabled() && x.requires_grad() ? Geglu::apply(dense) : gated(dense, *kernel);
}

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  const OpTimer timer("layer_norm");
  const auto learns = [](const Tensor& t) { return t.defined() && t.requires_grad(); };
  const bool recorded = at::GradMode::is_enabled() && (learns(x) || learns(weight) || learns(bias));
  const kernels::TokenKernel* kernel = token_kernel(x);
  // LibTorch's bfloat16 kernel is seven times slower than its float32 one (1.13.1).
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Tensor w = weight.to(wide), b = bias.to(wide);
  if (recorded || !kernel) return at::layer_norm(x.to(wide), {x.size(-1)}, w, b, eps).to(x.scalar_type());
  const Tensor dense = x.contiguous(), y = at::empty_like(dense), w_ = w.contiguous(), b_ = b.contiguous();
  for_rows(dense, [&](int64_t first, int64_t count) {
    kernel->layer_norm(row(dense, first), row(y, first), count, x.size(-1), static_cast<const float*>(w_.data_ptr()),
                       static_cast<const float*>(b_.data_ptr()), float(eps));
  });
  return y;
}

}  // namespace brume::nn
