#pragma once
// What few-step models put into Condition::vector: the latent of a generator, or the length of a step.
#include <functional>

#include "brume/core/condition.h"

namespace brume {

/// Returns the condition, its null condition included, with another vector. vector: [B, width].
Condition with_vector(const Condition& condition, const Tensor& vector);
/// Returns the width of the condition's vector; 0 if it has none.
int64_t vector_width(const Condition& condition);

/// Returns cos and sin of h at frequencies 1 to 64, geometric, [B, width] float32: smooth enough that differences over 1e-3 are
/// derivatives. h: [B]; width: even.
Tensor interval_features(const Tensor& h, int64_t width);

}  // namespace brume
