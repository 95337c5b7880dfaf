#include "brume/core/guidance.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <fmt/format.h>

#include "brume/config/errors.h"

namespace brume {

void need_null(const Controls& controls, std::string_view name) {
  if (controls.has_null) return;
  throw ConfigError(fmt::format(
      "{} needs an unconditional estimate, and this model {}", name,
      controls.classes > 0 ? "was trained without one (conditioner dropout: 0)" : "has no condition to leave out (conditioner: none)"));
}

EstimatePair denoise_both(const Denoiser& denoiser, const Tensor& x, double sigma, const Condition& condition, std::string_view name) {
  if (!condition.null) need_null({condition.classes.defined() ? 1 : 0, false}, name);
  const Estimate both = denoiser.denoise(at::cat({x, x}), sigma, concat(*condition.null, condition));
  const auto half = [&](int64_t k) {
    const auto of = [&](const Tensor& t) { return t.defined() ? t.narrow(0, k * x.size(0), x.size(0)) : t; };
    Estimate d;
    d.x0 = of(both.x0);
    d.x0_uncond = of(both.x0_uncond);
    d.variance = of(both.variance);
    d.gradient = of(both.gradient);
    return d;
  };
  return {half(1), half(0)};
}

Tensor extrapolate(const Tensor& a, const Tensor& b, double scale) { return a.defined() && b.defined() ? a + (b - a) * scale : b; }

}  // namespace brume
