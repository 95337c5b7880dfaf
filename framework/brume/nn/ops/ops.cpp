#include "brume/nn/ops/ops.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/upsample_nearest2d.h>

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "brume/core/formed_weights.h"
#include "brume/nn/ops/int8_layers.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/op_profile.h"
#include "brume/nn/ops/packed_weight.h"
#include "brume/nn/ops/training_conv.h"

namespace brume::nn {
namespace {

/// oneDNN chooses its kernel by the layer, not by the batch; ATen takes other paths for small inputs.
bool onednn(const Tensor& x) { return x.device().is_cpu() && packing(x.scalar_type()); }

/// Returns how LibTorch is fastest: its baseline in float32 is what torch::nn modules do on their own.
at::MemoryFormat library_format(const Tensor& x) {
  return x.scalar_type() == at::kBFloat16 && x.device().is_cpu() ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
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

/// Returns true if a layer computes from what is kept with its weight.
bool evaluates(const PackedWeight* packed, const Tensor& weight) {
  return packed && !at::GradMode::is_enabled() && !weight.requires_grad();
}

Tensor plus(const Tensor& sum, const Tensor& x) { return sum.defined() ? sum + x : x; }

/// Returns the numbers of a weight that may be held as integers.
Tensor floating(const Tensor& weight) {
  if (weight.is_floating_point()) return weight;
  if (!Int8Scope::layers()) throw std::logic_error("a layer holds integers outside of an Int8Scope");
  return Int8Scope::layers()->floating(weight);
}

/// Adds what `rounded`, a result in int8, is away from `exact` to the errors of its layer.
void note_error(const std::string& layer, const Tensor& exact, const Tensor& rounded, int64_t products) {
  Int8Errors& all = *Int8Scope::errors();
  auto own = std::find_if(all.begin(), all.end(), [&](const Int8Error& e) { return e.name == layer; });
  if (own == all.end()) own = all.insert(all.end(), {.name = layer});
  const auto squares = [](const Tensor& t) { return t.square().sum(at::kDouble).item<double>(); };
  own->error2 += squares(rounded - exact), own->norm2 += squares(exact), own->products += double(products);
}

/// Computes a layer that is only evaluated.
Tensor evaluated(const PackedWeight& packed, const Tensor& image, const Tensor& w, const Tensor& bias, int64_t stride, int64_t padding,
                 Tensor sum) {
  const Int8Layers* const layers = Int8Scope::layers();
  const std::shared_ptr<const Int8Weight> integers = layers ? layers->find(w, image) : nullptr;
  if (integers && !Int8Scope::errors()) return int8_conv2d(image, *integers, bias, stride, padding, sum);
  if (integers) {
    const Tensor rounded = int8_conv2d(image, *integers, bias, stride, padding), exact = packed.conv2d(image, w, bias, stride, padding);
    note_error(layers->name(w), exact, rounded, exact.numel() * integers->channels * integers->kernel * integers->kernel);
    return plus(sum, exact);
  }
  return packed.conv2d(image, floating(w), bias, stride, padding, std::move(sum));
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
    const int64_t channels = context->saved_data["channels"].toInt();
    if (at::GradMode::is_enabled())  // a gradient of the gradient is wanted
      return {grads[0].narrow(1, 0, channels), grads[0].narrow(1, channels, grads[0].size(1) - channels)};
    const Tensor joined = grads[0].contiguous(at::MemoryFormat::ChannelsLast);
    const Tensor a = channels_last(joined, channels), b = channels_last(joined, joined.size(1) - channels);
    for_rows(joined, a, b, [](const char* whole, char* part, size_t bytes) { std::memcpy(part, whole, bytes); });
    return {a, b};
  }
};

}  // namespace

Tensor concat(const Tensor& a, const Tensor& b) {
  const OpTimer timer("concat");
  if (!onednn(a)) return at::cat({a, b}, 1);
  const Tensor x = a.contiguous(at::MemoryFormat::ChannelsLast), y = b.contiguous(at::MemoryFormat::ChannelsLast);
  const bool learns = at::GradMode::is_enabled() && (a.requires_grad() || b.requires_grad());
  return learns ? Concat::apply(x, y) : join(x, y);
}

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride, int64_t padding, const PackedWeight* packed,
              Tensor sum) {
  const Tensor own = FormedWeights::of(weight), w = own.dim() == 3 ? own.unsqueeze(-1) : own;
  if (!own.is_same(weight)) packed = nullptr;  // a formed weight lives for this call alone
  const auto out = [&](int64_t n, int64_t k) { return double((n + 2 * padding - k) / stride + 1); };
  const OpTimer timer(w.size(2) * w.size(3) == 1 ? "conv2d 1x1" : "conv2d",
                      2.0 * double(x.size(0)) * double(w.numel()) * out(x.size(2), w.size(2)) * out(x.size(3), w.size(3)));
  const auto cast = [&](const Tensor& t) { return t.defined() ? t.to(x.scalar_type()) : t; };
  if (onednn(x)) {
    const Tensor image = x.contiguous(at::MemoryFormat::ChannelsLast);
    if (evaluates(packed, own)) return evaluated(*packed, image, w, cast(bias), stride, padding, std::move(sum));
    return plus(sum, training_conv2d(image, floating(w), bias, stride, padding));
  }
  return plus(sum, at::convolution(isa() == Isa::reference ? x.contiguous(library_format(x)) : x, cast(floating(w)), cast(bias),
                                   {stride, stride}, {padding, padding}, {1, 1}, false, {0, 0}, 1));
}

Tensor linear(const Tensor& x, const Tensor& held, const Tensor& bias, const PackedWeight* packed, Tensor sum) {
  const Tensor weight = FormedWeights::of(held);
  if (!weight.is_same(held)) packed = nullptr;
  const OpTimer timer("linear", 2.0 * double(x.numel()) * double(weight.size(0)));
  if (!onednn(x)) return plus(sum, at::linear(x, floating(weight).to(x.scalar_type()), bias.defined() ? bias.to(x.scalar_type()) : bias));
  // As a 1 x 1 convolution over the tokens: the same kernel for every batch.
  const int64_t batch = x.size(0), tokens = x.dim() == 3 ? x.size(1) : 1;
  const Tensor w = weight.view({weight.size(0), weight.size(1), 1, 1});
  std::optional<at::AutoDispatchBelowADInplaceOrView> loose;  // views that do not hold what they are of: the memory of `sum` can be given
  if (evaluates(packed, weight)) loose.emplace();
  const auto image = [&](const Tensor& t) { return t.reshape({batch, tokens, 1, t.size(-1)}).permute({0, 3, 1, 2}); };
  if (sum.defined()) sum = image(sum);
  const Tensor y = conv2d(image(x), w, bias, 1, 0, packed, std::move(sum)).permute({0, 2, 3, 1});
  return x.dim() == 3 ? y.reshape({batch, tokens, weight.size(0)}) : y.reshape({batch, weight.size(0)});
}

Tensor silu(const Tensor& x) {
  const OpTimer timer("silu");
  if (at::GradMode::is_enabled() || !onednn(x)) return at::silu(x);
  // at::silu takes another exponential at the end of an array than within it, so its bits would depend on the batch; at::exp does not.
  const Tensor wide = x.to(at::kFloat);
  return (wide / (wide.neg().exp() + 1)).to(x.scalar_type());
}

Tensor relu(const Tensor& x) { return at::relu(x); }
Tensor leaky_relu(const Tensor& x, double slope) { return at::leaky_relu(x, slope); }

Tensor gelu(const Tensor& x) {
  const OpTimer timer("gelu");
  if (at::GradMode::is_enabled() || !onednn(x)) return at::gelu(x);
  const Tensor wide = x.to(at::kFloat);  // as in silu: at::erf's bits do not depend on the place of a value
  return (wide * 0.5 * ((wide * std::sqrt(0.5)).erf() + 1)).to(x.scalar_type());
}

Tensor quick_gelu(const Tensor& x) {
  const OpTimer timer("quick_gelu");
  const Tensor wide = x.to(at::kFloat);
  return (wide / ((wide * -1.702).exp() + 1)).to(x.scalar_type());
}

Tensor upsample(const Tensor& x) { return upsample(x, x.size(2) * 2, x.size(3) * 2); }

Tensor upsample(const Tensor& x, int64_t height, int64_t width) {
  const OpTimer timer("upsample");
  return at::upsample_nearest2d(x, {height, width});
}

Tensor downsample(const Tensor& x) {
  const OpTimer timer("downsample");
  return at::avg_pool2d(x, {2, 2}, {2, 2});
}

}  // namespace brume::nn
