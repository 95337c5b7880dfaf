#include "brume/nn/blocks/layers.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cmath>
#include <stdexcept>

#include "brume/config/counted.h"
#include "brume/core/formed_weights.h"
#include "brume/nn/ops/group_norm.h"
#include "brume/nn/ops/ops.h"

namespace brume::nn {

Tensor Conv2d::operator()(const Tensor& x) const { return conv2d(x, weight, bias, stride, padding, packed.get()); }
Tensor Conv2d::onto(Tensor sum, const Tensor& x) const { return conv2d(x, weight, bias, stride, padding, packed.get(), std::move(sum)); }
Tensor Linear::operator()(const Tensor& x) const { return linear(x, weight, bias, packed.get()); }
Tensor Linear::onto(Tensor sum, const Tensor& x) const { return linear(x, weight, bias, packed.get(), std::move(sum)); }
Tensor GroupNorm::operator()(const Tensor& x) const { return group_norm_silu(x, groups, weight, bias, eps, false); }
Tensor GroupNorm::silu(const Tensor& x) const { return group_norm_silu(x, groups, weight, bias, eps, true); }
Tensor GroupNorm::silu(const Tensor& x, const Tensor& scale, const Tensor& shift) const {
  return group_norm_silu(x, groups, weight, bias, eps, true, scale, shift);
}
Tensor GroupNorm::silu_of_sum(const Tensor& x, const Tensor& added) const {
  return group_norm_silu(x, groups, weight, bias, eps, true, {}, {}, added);
}
Tensor LayerNorm::operator()(const Tensor& x) const { return layer_norm(x, weight, bias, eps); }

Tensor Embedding::operator()(const Tensor& ids) const { return FormedWeights::of(weight).index_select(0, ids); }

namespace {
thread_local bool weights_follow = false;
}

SkipInit::SkipInit(bool follow) : before_(weights_follow) { weights_follow = weights_follow || follow; }
SkipInit::~SkipInit() { weights_follow = before_; }
bool SkipInit::now() { return weights_follow; }

struct Builder::Store {
  at::Generator random;
  std::vector<Weight> weights;
};

Builder::Builder(uint64_t seed) : store_(std::make_shared<Store>(Store{at::detail::createCPUGenerator(seed), {}})) {}

Builder Builder::operator[](const std::string& name) const {
  Builder part = *this;
  part.prefix_ += name + ".";
  return part;
}

at::Generator& Builder::random() const { return store_->random; }
const std::vector<Weight>& Builder::weights() const { return store_->weights; }

Tensor Builder::add(const std::string& name, Tensor value, bool trainable, bool any_dtype) const {
  store_->weights.push_back({prefix_ + name, value, trainable, any_dtype});
  return value;
}

Tensor Builder::uniform(std::vector<int64_t> shape, double bound) const {
  const Tensor value = at::empty(shape, at::kFloat);
  return weights_follow ? value : value.uniform_(-bound, bound, store_->random);
}

Conv2d Builder::conv2d(const std::string& name, int64_t in, int64_t out, int64_t kernel, int64_t stride, bool bias) const {
  const double bound = 1 / std::sqrt(double(in * kernel * kernel));
  const Builder part = (*this)[name];
  // Channels last, as the images are: oneDNN would turn them at every call.
  const Tensor weight = weights_follow
                            ? at::empty({out, in, kernel, kernel}, at::TensorOptions().dtype(at::kFloat), at::MemoryFormat::ChannelsLast)
                            : uniform({out, in, kernel, kernel}, bound).contiguous(at::MemoryFormat::ChannelsLast);
  Conv2d conv{part.add("weight", weight, true, true), {}, stride, kernel / 2, std::make_shared<PackedWeight>()};
  if (bias) conv.bias = part.add("bias", uniform({out}, bound));
  return conv;
}

Conv2d Builder::conv1x1(const std::string& name, int64_t in, int64_t out) const {
  const double bound = 1 / std::sqrt(double(in));
  const Builder part = (*this)[name];
  return {part.add("weight", uniform({out, in, 1}, bound), true, true), part.add("bias", uniform({out}, bound)), 1, 0,
          std::make_shared<PackedWeight>()};
}

Linear Builder::linear(const std::string& name, int64_t in, int64_t out, bool bias) const {
  const double bound = 1 / std::sqrt(double(in));
  const Builder part = (*this)[name];
  const Tensor weight = part.add("weight", uniform({out, in}, bound), true, true);
  return {weight, bias ? part.add("bias", uniform({out}, bound)) : Tensor(), std::make_shared<PackedWeight>()};
}

LayerNorm Builder::layer_norm(const std::string& name, int64_t channels, double eps) const {
  const Builder part = (*this)[name];
  return {part.add("weight", at::ones({channels}, at::kFloat)), part.add("bias", at::zeros({channels}, at::kFloat)), eps};
}

GroupNorm Builder::group_norm(const std::string& name, int64_t channels, int64_t groups) const {
  if (channels % groups != 0)
    throw std::logic_error(
        fmt::format("{}{}: {} cannot be split into {}", prefix_, name, counted(channels, "channel"), counted(groups, "group")));
  const Builder part = (*this)[name];
  return {part.add("weight", at::ones({channels}, at::kFloat)), part.add("bias", at::zeros({channels}, at::kFloat)), groups};
}

Embedding Builder::embedding(const std::string& name, int64_t rows, int64_t width) const {
  return {(*this)[name].normal("weight", {rows, width}, 1)};
}

Tensor Builder::normal(const std::string& name, std::vector<int64_t> shape, double std, bool any_dtype) const {
  if (weights_follow) return add(name, at::empty(shape, at::kFloat), true, any_dtype);
  const Tensor value = at::randn(shape, store_->random, at::TensorOptions().dtype(at::kFloat));
  return add(name, std == 1 ? value : value.mul_(std), true, any_dtype);
}

Tensor Builder::buffer(const std::string& name, Tensor value) const { return add(name, std::move(value), false); }

}  // namespace brume::nn
