#include "nn/ops.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mkldnn_convolution.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/triu.h>
#include <ATen/ops/upsample_nearest2d.h>

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nn/flops.h"
#include "nn/isa.h"
#include "nn/kernels/attention_kernel.h"

namespace brume::nn {
namespace {

/// oneDNN chooses its kernel by the layer, not by the batch; ATen takes other paths for small inputs.
bool onednn(const Tensor& x) {
  return isa() != Isa::reference && x.device().is_cpu() && at::globalContext().userEnabledMkldnn() && at::hasMKLDNN() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

/// By whole products, [B * heads, ...]: differentiable, and any device.
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v) {
  const Tensor scores = at::bmm(q, k.transpose(1, 2));
  const Tensor weights = at::softmax(scores, -1, at::kFloat).to(q.scalar_type());
  return at::bmm(weights, v);
}

kernels::AttentionKernel attention_kernel() {
#if defined(__x86_64__)
  if (isa() == Isa::avx512) return kernels::attention_avx512;
  if (isa() == Isa::avx2) return kernels::attention_avx2;
#endif
  return kernels::attention_generic;
}

/// Head by head without a matrix of all scores, each by one thread: no path depends on the batch.
Tensor fused_attention(const Tensor& q, const Tensor& k, const Tensor& v) {
  const auto dense = [](const Tensor& t) { return t.stride(3) == 1 ? t : t.contiguous(); };
  const Tensor q_ = dense(q), k_ = dense(k), v_ = dense(v);
  const int64_t batch = q.size(0), heads = q.size(1), queries = q.size(2), keys = k.size(2), width = q.size(3);
  const Tensor out = at::empty({batch, queries, heads, width}, q.options());  // as the projection that follows wants it
  const kernels::AttentionKernel kernel = attention_kernel();
  const bool bf16 = q.scalar_type() == at::kBFloat16;
  const int64_t blocks = (queries + 255) / 256;  // of queries, for few heads and big images
  const auto place = [&](const Tensor& t, int64_t b, int64_t h, int64_t row) {
    const int64_t at = t.storage_offset() + b * t.stride(0) + h * t.stride(1) + row * t.stride(2);
    return static_cast<char*>(t.storage().data_ptr().get()) + at * t.element_size();
  };
  at::parallel_for(0, batch * heads * blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(size_t(kernels::attention_scratch(keys, width)));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t block = task % blocks, h = task / blocks % heads, b = task / blocks / heads, first = block * 256;
      kernel({{place(q_, b, h, first), q_.stride(2)},
              {place(k_, b, h, 0), k_.stride(2)},
              {place(v_, b, h, 0), v_.stride(2)},
              static_cast<char*>(out.data_ptr()) + ((b * queries + first) * heads + h) * width * out.element_size(),
              heads * width,
              std::min<int64_t>(256, queries - first),
              keys,
              width,
              float(1 / std::sqrt(double(width))),
              scratch.data()},
             bf16);
    }
  });
  return out.transpose(1, 2);
}

/// Rows of channels: `joined` [pixels, Ca + Cb] from or to `a` [pixels, Ca] and `b` [pixels, Cb].
template <class F>
void for_rows(const Tensor& joined, const Tensor& a, const Tensor& b, const F& copy) {
  const int64_t bytes_a = a.size(1) * a.element_size(), bytes_b = b.size(1) * b.element_size(), bytes = bytes_a + bytes_b;
  char *pj = static_cast<char*>(joined.data_ptr()), *pa = static_cast<char*>(a.data_ptr()), *pb = static_cast<char*>(b.data_ptr());
  const int64_t pixels = joined.numel() / joined.size(1);
  at::parallel_for(0, pixels, std::max<int64_t>(1, 65536 / bytes), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      copy(pj + i * bytes, pa + i * bytes_a, size_t(bytes_a));
      copy(pj + i * bytes + bytes_a, pb + i * bytes_b, size_t(bytes_b));
    }
  });
}

Tensor channels_last(const Tensor& like, int64_t channels) {
  return at::empty({like.size(0), channels, like.size(2), like.size(3)}, like.options(), at::MemoryFormat::ChannelsLast);
}

Tensor join(const Tensor& a, const Tensor& b) {
  const Tensor out = channels_last(a, a.size(1) + b.size(1));
  for_rows(out, a, b, [](char* joined, const char* part, size_t bytes) { std::memcpy(joined, part, bytes); });
  return out;
}

/// Concatenation whose backward pass gives two dense gradients: LibTorch's gives strided views, copied slowly later.
struct Concat final : torch::autograd::Function<Concat> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& a, const Tensor& b) {
    context->saved_data["channels"] = a.size(1);
    return join(a, b);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, const torch::autograd::variable_list& grads) {
    const Tensor joined = grads[0].contiguous(at::MemoryFormat::ChannelsLast);
    const int64_t channels = context->saved_data["channels"].toInt();
    const Tensor a = channels_last(joined, channels), b = channels_last(joined, joined.size(1) - channels);
    for_rows(joined, a, b, [](const char* whole, char* part, size_t bytes) { std::memcpy(part, whole, bytes); });
    return {a, b};
  }
};

}  // namespace

Tensor concat(const Tensor& a, const Tensor& b) {
  if (!onednn(a)) return at::cat({a, b}, 1);
  const Tensor x = a.contiguous(at::MemoryFormat::ChannelsLast), y = b.contiguous(at::MemoryFormat::ChannelsLast);
  const bool learns = at::GradMode::is_enabled() && (a.requires_grad() || b.requires_grad());
  return learns ? Concat::apply(x, y) : join(x, y);
}

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride, int64_t padding) {
  Tensor w = weight.dim() == 3 ? weight.unsqueeze(-1) : weight;
  w = w.to(x.scalar_type());
  const Tensor b = bias.defined() ? bias.to(x.scalar_type()) : bias;
  const auto out = [&](int64_t n, int64_t k) { return double((n + 2 * padding - k) / stride + 1); };
  FlopCounter::add(2.0 * double(x.size(0)) * double(w.numel()) * out(x.size(2), w.size(2)) * out(x.size(3), w.size(3)));
  const std::vector<int64_t> s{stride, stride}, p{padding, padding}, d{1, 1};
  if (onednn(x)) return at::mkldnn_convolution(x.contiguous(at::MemoryFormat::ChannelsLast), w, b, p, s, d, 1);
  return at::convolution(isa() == Isa::reference ? x.contiguous() : x, w, b, s, p, d, false, {0, 0}, 1);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (!onednn(x)) {
    FlopCounter::add(2.0 * double(x.numel()) * double(weight.size(0)));
    return at::linear(x, weight.to(x.scalar_type()), bias.defined() ? bias.to(x.scalar_type()) : bias);
  }
  // As a 1 x 1 convolution over the tokens: the same kernel for every batch.
  const int64_t batch = x.size(0), tokens = x.dim() == 3 ? x.size(1) : 1;
  const Tensor image = x.reshape({batch, tokens, 1, x.size(-1)}).permute({0, 3, 1, 2});
  const Tensor y = conv2d(image, weight.view({weight.size(0), weight.size(1), 1, 1}), bias).permute({0, 2, 3, 1});
  return x.dim() == 3 ? y.reshape({batch, tokens, weight.size(0)}) : y.reshape({batch, weight.size(0)});
}

namespace {
/// 0 where a key is seen and -1e30 where not, [B, 1 or heads, N or 1, M] to add to the scores; undefined where all are seen.
Tensor unseen(const Tensor& q, const Tensor& k, const AttentionMask& mask) {
  constexpr double never = -1e30;
  Tensor add;
  if (mask.keys.defined()) add = ((1 - mask.keys.to(at::kFloat)) * never).unsqueeze(1).unsqueeze(1);
  if (!mask.causal) return add;
  const Tensor later = at::full({q.size(2), k.size(2)}, never, q.options().dtype(at::kFloat)).triu(1);
  return add.defined() ? add + later : later.unsqueeze(0).unsqueeze(0);
}

/// By whole products, with a mask.
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) {
  const Tensor scores = at::matmul(q, k.transpose(2, 3)).to(at::kFloat) + unseen(q, k, mask);
  return at::matmul(at::softmax(scores, -1, at::kFloat).to(q.scalar_type()), v);
}
}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) {
  FlopCounter::add(2.0 * double(q.numel()) * double(k.size(2)) * 2);
  if (mask.keys.defined() || mask.causal) return attend(q * (1 / std::sqrt(double(q.size(-1)))), k, v, mask);
  if (at::GradMode::is_enabled() || !onednn(q)) {
    const Tensor scaled = q * (1 / std::sqrt(double(q.size(-1))));
    const auto flat = [](const Tensor& t) { return t.reshape({t.size(0) * t.size(1), t.size(2), t.size(3)}); };
    return attend(flat(scaled), flat(k), flat(v)).view({q.size(0), q.size(1), q.size(2), v.size(3)});
  }
  return fused_attention(q, k, v);
}

Tensor silu(const Tensor& x) {
  if (at::GradMode::is_enabled() || !onednn(x)) return at::silu(x);
  // at::silu takes another exponential at the end of an array than within it, so its bits would depend on the batch; at::exp does not.
  const Tensor wide = x.to(at::kFloat);
  return (wide / (wide.neg().exp() + 1)).to(x.scalar_type());
}

Tensor relu(const Tensor& x) { return at::relu(x); }
Tensor leaky_relu(const Tensor& x, double slope) { return at::leaky_relu(x, slope); }

Tensor gelu(const Tensor& x) {
  if (at::GradMode::is_enabled() || !onednn(x)) return at::gelu(x);
  const Tensor wide = x.to(at::kFloat);  // as in silu: at::erf's bits do not depend on where a value stands
  return (wide * 0.5 * ((wide * std::sqrt(0.5)).erf() + 1)).to(x.scalar_type());
}

namespace {
/// Keeps its input alone; the gradient is written once instead of as two halves that are padded with zeros and added.
struct Geglu final : torch::autograd::Function<Geglu> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x) {
    context->save_for_backward({x});
    const int64_t half = x.size(-1) / 2;
    return x.narrow(-1, 0, half) * at::gelu(x.narrow(-1, half, half));
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, const torch::autograd::variable_list& grads) {
    const Tensor x = context->get_saved_variables()[0];
    const int64_t half = x.size(-1) / 2;
    const Tensor a = x.narrow(-1, 0, half), gate = x.narrow(-1, half, half);
    return {at::cat({grads[0] * at::gelu(gate), at::gelu_backward(grads[0] * a, gate)}, -1)};
  }
};
}  // namespace

Tensor geglu(const Tensor& x) {
  if (at::GradMode::is_enabled() && x.requires_grad()) return Geglu::apply(x);
  const int64_t half = x.size(-1) / 2;
  return x.narrow(-1, 0, half) * nn::gelu(x.narrow(-1, half, half));
}

Tensor quick_gelu(const Tensor& x) {
  const Tensor wide = x.to(at::kFloat);
  return (wide / ((wide * -1.702).exp() + 1)).to(x.scalar_type());
}

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  // Its bfloat16 kernel is seven times slower than the float32 one (LibTorch 1.13.1).
  const Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  const auto cast = [&](const Tensor& t) { return t.defined() ? t.to(wide.scalar_type()) : t; };
  return at::layer_norm(wide, {x.size(-1)}, cast(weight), cast(bias), eps).to(x.scalar_type());
}

Tensor upsample(const Tensor& x) { return at::upsample_nearest2d(x, {x.size(2) * 2, x.size(3) * 2}); }

Tensor downsample(const Tensor& x) { return at::avg_pool2d(x, {2, 2}, {2, 2}); }

Tensor dropout(const Tensor& x, double p, at::Generator* random) {
  if (!random || p == 0) return x;
  const Tensor keep = at::empty_like(x).bernoulli_(1 - p, *random);
  return x * keep * (1 / (1 - p));
}

}  // namespace brume::nn
