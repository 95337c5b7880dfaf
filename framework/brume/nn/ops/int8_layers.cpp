#include "brume/nn/ops/int8_layers.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "brume/core/file_pages.h"

namespace brume::nn {
namespace {

thread_local const Int8Layers* layers_now = nullptr;
thread_local Int8Errors* errors_now = nullptr;
thread_local bool active_now = false;

}  // namespace

double Int8Error::relative() const { return norm2 > 0 ? std::sqrt(error2 / norm2) : 0; }

void Int8Layers::add(const std::string& name, const Tensor& weight) {
  if (int8_fits(weight)) layers_[weight.data_ptr()] = {name, weight, {}};
}
void Int8Layers::add(const std::string& name, const Tensor& values, const Tensor& scales) {
  layers_[values.data_ptr()] = {name, values, scales};
}
void Int8Layers::add_inner(const std::string& prefix, const std::vector<Weight>& weights, int64_t in, int64_t out) {
  for (const Weight& w : weights) {
    if (!w.any_dtype || !w.tensor.is_floating_point() || w.tensor.dim() < 2) continue;
    const auto edge = [&](int64_t axis, int64_t channels) {
      return w.tensor.size(axis) == channels || (w.tensor.dim() == 2 && w.tensor.size(axis) == 4 * channels);
    };
    if (!edge(1, in) && !edge(0, out)) add(prefix + w.name, w.tensor);
  }
}
void Int8Layers::keep(const std::string& name) {
  for (auto& [_, layer] : layers_)
    if (layer.name == name) layer.kept = true;
}

std::shared_ptr<const Int8Weight> Int8Layers::find(const Tensor& weight, const Tensor& image) const {
  constexpr int64_t few = 16;
  if (image.scalar_type() != at::kFloat || image.size(2) * image.size(3) < 2) return nullptr;
  if (std::min(weight.size(0), weight.size(1)) < few) return nullptr;
  const auto found = layers_.find(weight.data_ptr());
  if (found == layers_.end() || found->second.kept) return nullptr;
  const Layer& layer = found->second;
  const std::lock_guard lock(mutex_);
  if (layer.ready) return layer.ready;
  const at::NoGradGuard no_grad;
  const Int8Values values = layer.scales.defined() ? Int8Values{layer.weight, layer.scales} : int8_values(layer.weight);
  layer.ready = std::make_shared<const Int8Weight>(int8_weight(values));
  discard_file_pages(layer.weight.data_ptr(), layer.weight.nbytes());
  return layer.ready;
}

Tensor Int8Layers::floating(const Tensor& weight) const {
  const auto found = layers_.find(weight.data_ptr());
  if (found == layers_.end() || !found->second.scales.defined())
    throw std::logic_error("a layer holds integers, and nothing says what they stand for");
  const at::NoGradGuard no_grad;
  return from_int8({weight, found->second.scales});
}

const std::string& Int8Layers::name(const Tensor& weight) const { return layers_.at(weight.data_ptr()).name; }

Int8Scope::Int8Scope(const Int8Layers* layers, Int8Errors* errors)
    : layers_before_(layers_now), errors_before_(errors_now), active_before_(active_now) {
  layers_now = layers, errors_now = errors, active_now = true;
}
Int8Scope::~Int8Scope() { layers_now = layers_before_, errors_now = errors_before_, active_now = active_before_; }
bool Int8Scope::active() { return active_now; }
const Int8Layers* Int8Scope::layers() { return layers_now; }
Int8Errors* Int8Scope::errors() { return errors_now; }

}  // namespace brume::nn
