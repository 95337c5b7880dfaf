// Group normalisation, scale and shift, SiLU: the definition in ATen operations, autograd, and the choice between the two paths.
// The fused path itself is in nn/group_norm_fused.h and nn/kernels/.

#include "brume/nn/ops/group_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/silu.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "brume/nn/ops/group_norm_fused.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/op_profile.h"

namespace brume::nn {
namespace {

/// Dense in the kernel's order: [B, H, W, C] or [B, N, C].
at::Tensor channels_last(const at::Tensor& x) {
  if (x.dim() == 4) return x.contiguous(at::MemoryFormat::ChannelsLast);
  return x.transpose(1, 2).contiguous().transpose(1, 2);
}

// ---- plain ATen operations: the definition, for float64, other devices, and gradients of gradients

at::Tensor reference(const at::Tensor& x, int64_t groups, const at::Tensor& gamma, const at::Tensor& beta, double eps, bool silu,
                     const at::Tensor& scale, const at::Tensor& shift) {
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<int64_t> per_channel(static_cast<size_t>(x.dim()), 1);
  const auto broadcast = [&](const at::Tensor& parameter) {  // [C] or [B, C]
    per_channel[0] = parameter.dim() == 2 ? x.size(0) : 1;
    per_channel[1] = x.size(1);
    return parameter.to(wide).reshape(per_channel);
  };
  const at::Tensor grouped = x.to(wide).reshape({x.size(0), groups, x.numel() / (x.size(0) * groups)});
  const at::Tensor centred = grouped - grouped.mean(2, true);
  const at::Tensor rstd = ((centred * centred).mean(2, true) + eps).rsqrt();
  at::Tensor z = (centred * rstd).reshape(x.sizes()) * broadcast(gamma) + broadcast(beta);
  if (scale.defined()) z = z * (broadcast(scale) + 1) + broadcast(shift);
  if (silu) z = z * z.sigmoid();
  return channels_last(z.to(x.scalar_type()));
}

/// As a network of torch::nn modules computes it (float32: LibTorch 1.13.1's bf16 group norm is wrong).
at::Tensor library(const at::Tensor& x, int64_t groups, const at::Tensor& gamma, const at::Tensor& beta, double eps, bool silu,
                   const at::Tensor& scale, const at::Tensor& shift) {
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<int64_t> per_image(static_cast<size_t>(x.dim()), 1);
  per_image[0] = x.size(0), per_image[1] = x.size(1);
  at::Tensor z = at::group_norm(x.scalar_type() == wide ? x.contiguous() : x.to(wide), groups, gamma.to(wide), beta.to(wide), eps);
  if (scale.defined()) z = z * (scale.to(wide).reshape(per_image) + 1) + shift.to(wide).reshape(per_image);
  return (silu ? at::silu(z) : z).to(x.scalar_type());
}

// ---- autograd

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = torch::autograd::optional_variable_list::value_type;  // of c10 or of std, by LibTorch's version

OptionalTensor optional(const at::Tensor& tensor) { return tensor.defined() ? OptionalTensor(tensor) : OptionalTensor(); }

class GroupNormSilu : public torch::autograd::Function<GroupNormSilu> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta,
                            const OptionalTensor& scale, const OptionalTensor& shift, int64_t groups, double eps, bool silu) {
    const at::Tensor scale_ = scale.value_or(at::Tensor()), shift_ = shift.value_or(at::Tensor());
    const fused::Call call(x, groups, gamma, beta, eps, silu, scale_, shift_);
    at::Tensor stats;
    const at::Tensor y = fused::forward(call, x, stats);
    context->save_for_backward({x, gamma, beta, scale_, shift_, stats});
    context->saved_data["groups"] = groups;
    context->saved_data["eps"] = eps;
    context->saved_data["silu"] = silu;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list dy) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &gamma = saved[1], &beta = saved[2], &scale = saved[3], &shift = saved[4], &stats = saved[5];
    const int64_t groups = context->saved_data["groups"].toInt();
    const double eps = context->saved_data["eps"].toDouble();
    const bool silu = context->saved_data["silu"].toBool();
    variable_list result(8);
    if (at::GradMode::is_enabled()) {  // a gradient of the gradient is wanted: differentiate the definition instead
      // A view of each input, so that none of them is reached through another (a scale computed from x, say).
      variable_list input(5), inputs;
      std::vector<size_t> places;
      for (size_t i = 0; i < 5; ++i) {
        if (saved[i].defined()) input[i] = saved[i].view_as(saved[i]);
        if (!input[i].defined() || !input[i].requires_grad()) continue;
        inputs.push_back(input[i]);
        places.push_back(i);
      }
      const at::Tensor y = reference(input[0], groups, input[1], input[2], eps, silu, input[3], input[4]);
      const variable_list gradients = torch::autograd::grad({y}, inputs, {dy[0]}, true, true, true);
      for (size_t i = 0; i < places.size(); ++i) result[places[i]] = gradients[i];
      return result;
    }
    const fused::Call call(x, groups, gamma, beta, eps, silu, scale, shift);
    const OpTimer timer("group_norm gradient");
    const fused::Gradients d = fused::backward(call, x, stats, channels_last(dy[0].to(x.scalar_type())), context->needs_input_grad(0));
    result[0] = d.x;
    result[1] = d.gamma.to(gamma.scalar_type());
    result[2] = d.beta.to(beta.scalar_type());
    if (scale.defined()) {
      result[3] = d.scale.to(scale.scalar_type());
      result[4] = d.shift.to(shift.scalar_type());
    }
    return result;
  }
};

// ---- checks

std::string shape(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.sizes();
  return text.str();
}

void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument("group_norm_silu: " + message);
}

void require_shape(const char* name, const at::Tensor& parameter, at::IntArrayRef expected, const at::Tensor& x) {
  require(parameter.defined(), std::string(name) + " is missing");
  std::ostringstream wanted;
  wanted << expected;
  require(parameter.sizes() == expected,
          std::string(name) + " is " + shape(parameter) + ", and x, " + shape(x) + ", needs " + wanted.str());
  require(at::isFloatingType(parameter.scalar_type()), std::string(name) + " is not floating point");
  require(parameter.device() == x.device(), std::string(name) + " and x are on different devices");
}

void check(const at::Tensor& x, int64_t groups, const at::Tensor& gamma, const at::Tensor& beta, const at::Tensor& scale,
           const at::Tensor& shift, const at::Tensor& added) {
  require(x.defined(), "x is missing");
  require(x.dim() == 3 || x.dim() == 4, "x is " + shape(x) + "; expected [B, C, H, W] or [B, C, N]");
  require(at::isFloatingType(x.scalar_type()), "x is not floating point");
  require(x.numel() > 0, "x is empty: " + shape(x));
  require(groups > 0 && x.size(1) % groups == 0,
          std::to_string(groups) + " groups do not divide the " + std::to_string(x.size(1)) + " channels of x, " + shape(x));
  require_shape("gamma", gamma, {x.size(1)}, x);
  require_shape("beta", beta, {x.size(1)}, x);
  if (added.defined()) require_shape("added", added, {x.size(0), x.size(1)}, x);
  require(scale.defined() == shift.defined(), "scale and shift go together, but only one is given");
  if (!scale.defined()) return;
  require_shape("scale", scale, {x.size(0), x.size(1)}, x);
  require_shape("shift", shift, {x.size(0), x.size(1)}, x);
}

}  // namespace

at::Tensor group_norm_silu(const at::Tensor& x, int64_t groups, const at::Tensor& gamma, const at::Tensor& beta, double eps, bool silu,
                           const at::Tensor& scale, const at::Tensor& shift, const at::Tensor& added) {
  const OpTimer timer("group_norm");
  check(x, groups, gamma, beta, scale, shift, added);
  const auto sum = [&] {
    std::vector<int64_t> per_image(static_cast<size_t>(x.dim()), 1);
    per_image[0] = x.size(0), per_image[1] = x.size(1);
    return added.defined() ? x + added.to(x.scalar_type()).reshape(per_image) : x;
  };
  const bool in_kernel = x.device().is_cpu() && (x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kFloat);
  if (!in_kernel) return reference(sum(), groups, gamma, beta, eps, silu, scale, shift);
  if (isa() == Isa::reference) return library(sum(), groups, gamma, beta, eps, silu, scale, shift);
  const auto learns = [](const at::Tensor& t) { return t.defined() && t.requires_grad(); };
  if (at::GradMode::is_enabled() && (learns(x) || learns(gamma) || learns(beta) || learns(scale) || learns(shift) || learns(added))) {
    return GroupNormSilu::apply(channels_last(sum()), gamma, beta, optional(scale), optional(shift), groups, eps, silu);
  }
  const at::Tensor dense = channels_last(x);
  at::Tensor stats;
  return fused::forward(fused::Call(dense, groups, gamma, beta, eps, silu, scale, shift, added), dense, stats);
}

}  // namespace brume::nn
