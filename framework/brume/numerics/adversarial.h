#pragma once
// Losses of a generator and its discriminator, and their gradients.
#include "brume/core/tensor.h"

namespace brume {

/// Returns mean softplus(-logits), the generator's loss (Goodfellow et al. 2014, sec. 3, "non-saturating").
Tensor generator_loss(const Tensor& of_fake);
/// Returns mean softplus(-real) + mean softplus(fake).
Tensor discriminator_loss(const Tensor& of_real, const Tensor& of_fake);
/// Returns mean max(0, 1 - real) + mean max(0, 1 + fake), the hinge loss (Lim & Ye 2017); its generator's loss is -mean fake.
Tensor hinge_loss(const Tensor& of_real, const Tensor& of_fake);
/// Returns the mean over the images of |grad_x D(x)|^2, differentiable in D's weights: R1 without its factor gamma / 2 (Mescheder et al.
/// 2018, eq. 9). `logits`: of `x`, which requires a gradient; the logits of an image count with their mean.
Tensor squared_gradient(const Tensor& logits, const Tensor& x);

/// Returns a scalar of this value whose gradient in `x` is `gradient`, whatever the value was computed with: the weights of a discriminator
/// do not learn from the generator's loss.
Tensor with_gradient(const Tensor& value, const Tensor& x, const Tensor& gradient);

/// Throws ConfigError that names the step if the loss of a discriminator is not finite.
void expect_finite_discriminator(const Tensor& loss, int64_t step);

}  // namespace brume
