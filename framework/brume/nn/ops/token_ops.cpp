// nn::layer_norm, geglu, gelu_tanh, softmax and dropout: kernels on the CPU, LibTorch's operations elsewhere and for gradients of
// gradients.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_softmax_backward_data.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "brume/core/rows.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/kernels/token_kernel.h"
#include "brume/nn/ops/op_profile.h"
#include "brume/nn/ops/ops.h"
#include "brume/nn/ops/softmax.h"
#include "brume/nn/ops/transformer_ops.h"

namespace brume::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Returns the kernels for a type on a device; null if brume has none.
const kernels::TokenKernel* token_kernel(at::ScalarType type, const at::Device& device) {
  if (isa() == Isa::reference || !device.is_cpu()) return nullptr;
  const kernels::TokenKernels* all = &kernels::tokens_generic();
#if defined(__x86_64__)
  if (isa() == Isa::avx2) all = &kernels::tokens_avx2();
  if (isa() >= Isa::avx512) all = &kernels::tokens_avx512();
#endif
  return type == at::kFloat ? &all->float32 : type == at::kBFloat16 ? &all->bfloat16 : nullptr;
}
const kernels::TokenKernel* token_kernel(const Tensor& x) { return token_kernel(x.scalar_type(), x.device()); }

/// call(first, count) for rows shared among threads.
template <class F>
void for_rows(const Tensor& x, const F& call) {
  const int64_t width = x.size(-1), rows = width > 0 ? x.numel() / width : 0;
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width)),
                   [&](int64_t begin, int64_t end) { call(begin, end - begin); });
}
/// Returns the place of a row of a dense tensor.
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
    const OpTimer timer("geglu gradient");
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

Tensor activated(const Tensor& x, const kernels::TokenKernel& kernel) {
  const Tensor y = at::empty_like(x);
  for_rows(x, [&](int64_t first, int64_t count) { kernel.gelu_tanh(row(x, first), row(y, first), count, x.size(-1)); });
  return y;
}

/// x: dense.
struct GeluTanh final : torch::autograd::Function<GeluTanh> {
  static Tensor forward(AutogradContext* context, const Tensor& x) {
    context->save_for_backward({x});
    return activated(x, *token_kernel(x));
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const OpTimer timer("gelu_tanh gradient");
    const Tensor x = context->get_saved_variables()[0], dy = grads[0].contiguous();
    const kernels::TokenKernel* kernel = token_kernel(x);
    if (at::GradMode::is_enabled() || !kernel) return {at::gelu_backward(dy, x, "tanh")};  // a gradient of the gradient is wanted
    const Tensor dx = at::empty_like(x);
    for_rows(x, [&](int64_t first, int64_t count) {
      kernel->gelu_tanh_gradient(row(x, first), row(dy, first), row(dx, first), count, x.size(-1));
    });
    return {dx};
  }
};

}  // namespace

Tensor gelu_tanh(const Tensor& x) {
  const OpTimer timer("gelu_tanh");
  const bool learns = at::GradMode::is_enabled() && x.requires_grad();
  if (const kernels::TokenKernel* kernel = token_kernel(x)) {
    const Tensor dense = x.contiguous();
    return learns ? GeluTanh::apply(dense) : activated(dense, *kernel);
  }
  if (learns || !x.device().is_cpu() || isa() == Isa::reference) return at::gelu(x, "tanh");
  // (1 + tanh u) / 2 = 1 / (1 + exp(-2u)); at::exp has the same bits at every place of an array.
  const Tensor wide = x.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  const double rate = -2 * std::sqrt(2 / std::numbers::pi);
  return (wide / (((wide * wide * 0.044715 + 1) * wide * rate).exp() + 1)).to(x.scalar_type());
}

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

Tensor modulated_layer_norm(const Tensor& x, const Tensor& scale, const Tensor& shift, double eps) {
  const kernels::TokenKernel* kernel = token_kernel(x);
  const int64_t width = x.size(-1), tokens = x.size(1);
  if (!kernel || at::GradMode::is_enabled()) {
    const auto options = x.options().dtype(at::kFloat);
    return modulate(layer_norm(x, at::ones({width}, options), at::zeros({width}, options), eps), scale, shift);
  }
  const OpTimer timer("modulated layer_norm");
  const Tensor dense = x.contiguous(), y = at::empty_like(dense);
  const Tensor gain = (scale.to(at::kFloat) + 1).contiguous(), bias = shift.to(at::kFloat).contiguous();
  const auto of = [&](const Tensor& t, int64_t image) { return static_cast<const float*>(t.data_ptr()) + image * width; };
  for_rows(dense, [&](int64_t first, int64_t count) {
    for (const int64_t end = first + count; first < end;) {  // rows of one image after another
      const int64_t image = first / tokens, here = std::min(end, (image + 1) * tokens) - first;
      kernel->layer_norm(row(dense, first), row(y, first), here, width, of(gain, image), of(bias, image), float(eps));
      first += here;
    }
  });
  return y;
}

Tensor from_half(const Tensor& x, at::ScalarType type) {
  const kernels::TokenKernel* kernel = token_kernel(type, x.device());
  if (!kernel || !x.is_non_overlapping_and_dense()) return x.to(type);
  const Tensor y = at::empty_like(x, x.options().dtype(type));
  at::parallel_for(0, x.numel(), 65536, [&](int64_t begin, int64_t end) {
    char* const to = static_cast<char*>(y.data_ptr()) + begin * y.element_size();
    kernel->from_half(static_cast<const uint16_t*>(x.data_ptr()) + begin, to, end - begin);
  });
  return y;
}

Tensor softmax(const Tensor& scores, at::ScalarType type) {
  const kernels::TokenKernel* kernel = token_kernel(type, scores.device());
  if (!kernel || scores.scalar_type() != at::kFloat) return at::softmax(scores, -1).to(type);
  const Tensor p = at::empty(scores.sizes(), scores.options().dtype(type));
  for_rows(scores, [&](int64_t first, int64_t count) {
    kernel->softmax(reinterpret_cast<const float*>(row(scores, first)), row(p, first), count, scores.size(-1));
  });
  return p;
}

Tensor softmax_gradient(const Tensor& p, const Tensor& dp, double scale) {
  const kernels::TokenKernel* kernel = token_kernel(p);
  if (!kernel || dp.scalar_type() != at::kFloat)
    return at::_softmax_backward_data(dp, p.to(dp.scalar_type()), -1, dp.scalar_type()).mul_(scale).to(p.scalar_type());
  const Tensor ds = at::empty_like(p);
  for_rows(p, [&](int64_t first, int64_t count) {
    kernel->softmax_gradient(row(p, first), reinterpret_cast<const float*>(row(dp, first)), row(ds, first), count, p.size(-1),
                             float(scale));
  });
  return ds;
}

namespace {

/// Of x, which is dense; by the places in its memory.
Tensor dropped(const Tensor& x, double p, int64_t seed, int64_t offset, const kernels::TokenKernel& kernel) {
  const Tensor y = at::empty_like(x);
  at::parallel_for(0, x.numel(), 16384, [&](int64_t begin, int64_t end) {
    kernel.dropout(x.data_ptr(), y.data_ptr(), begin, end - begin, offset, float(p), uint64_t(seed));
  });
  return y;
}

/// The backward pass finds what is kept by the seed.
struct Dropout final : torch::autograd::Function<Dropout> {
  static Tensor forward(AutogradContext* context, const Tensor& x, double p, int64_t seed, int64_t offset) {
    context->saved_data["p"] = p;
    context->saved_data["offset"] = offset;
    context->saved_data["seed"] = seed;
    context->saved_data["strides"] = x.strides();
    return dropped(x, p, seed, offset, *token_kernel(x));
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const OpTimer timer("dropout");
    Tensor d = grads[0];
    const std::vector<int64_t> strides = context->saved_data["strides"].toIntVector();
    if (d.strides() != at::IntArrayRef(strides)) d = at::empty_strided(d.sizes(), strides, d.options()).copy_(d);
    return {
        Dropout::apply(d, context->saved_data["p"].toDouble(), context->saved_data["seed"].toInt(), context->saved_data["offset"].toInt()),
        {},
        {},
        {}};
  }
};

/// Ones for the share 1 - p of the values of x, else 0.
Tensor kept_by_torch(const Tensor& x, double p, at::Generator& random) {
  if (!batch_part()) return at::empty_like(x).bernoulli_(1 - p, random);
  return draw_rows(x.size(0), [&](int64_t n) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape.front() = n;
    return at::empty(shape, x.options(), x.suggest_memory_format()).bernoulli_(1 - p, random);
  });
}

}  // namespace

Tensor dropout(const Tensor& x, double p, at::Generator* random) {
  if (!random || p == 0) return x;
  const OpTimer timer("dropout");
  const BatchPart* part = batch_part();
  if (isa() == Isa::reference) return x * kept_by_torch(x, p, *random) * (1 / (1 - p));
  const int64_t offset = part ? x.numel() / part->count * part->first : 0;
  const auto seed = int64_t(at::check_generator<at::CPUGeneratorImpl>(*random)->random64());
  const Tensor dense = x.is_non_overlapping_and_dense() ? x : x.contiguous();
  if (token_kernel(x)) return Dropout::apply(dense, p, seed, offset);
  const Tensor ones = at::ones({}, at::kFloat).expand(x.sizes());  // on other devices, and in float64: the same places
  const Tensor kept =
      dropped(at::empty_strided(x.sizes(), dense.strides(), at::kFloat).copy_(ones), p, seed, offset, kernels::tokens_generic().float32);
  return x * kept.to(x.options());
}

}  // namespace brume::nn
