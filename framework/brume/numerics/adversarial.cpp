#include "brume/numerics/adversarial.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/softplus.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "brume/config/errors.h"

namespace brume {

Tensor generator_loss(const Tensor& of_fake) { return at::softplus(-of_fake).mean(); }

Tensor discriminator_loss(const Tensor& of_real, const Tensor& of_fake) {
  return at::softplus(-of_real).mean() + at::softplus(of_fake).mean();
}

Tensor hinge_loss(const Tensor& of_real, const Tensor& of_fake) { return at::relu(1 - of_real).mean() + at::relu(1 + of_fake).mean(); }

Tensor squared_gradient(const Tensor& logits, const Tensor& x) {
  const Tensor sum = logits.flatten(1).mean(1).sum();
  const Tensor gradient = torch::autograd::grad({sum}, {x}, {}, /*retain_graph=*/true, /*create_graph=*/true)[0];
  return gradient.flatten(1).square().sum(1).mean();
}

Tensor with_gradient(const Tensor& value, const Tensor& x, const Tensor& gradient) {
  const Tensor product = (x * gradient.detach()).sum();
  return value.detach() + (product - product.detach());
}

void expect_finite_discriminator(const Tensor& loss, int64_t step) {
  const double value = loss.item<double>();
  if (!std::isfinite(value))
    throw ConfigError(fmt::format(
        "the discriminator's loss is {} at step {}; a lower learning rate of its optimizer, or a larger r1, may help", value, step));
}

}  // namespace brume
