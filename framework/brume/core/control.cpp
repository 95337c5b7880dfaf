#include "brume/core/control.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/adaptive_avg_pool2d.h>

namespace brume {

void ControlSettings::declare(Fields& f) {
  f.field("file", file, "the weights: a file, or a directory of diffusers");
  f.field("image", image, "the image that steers, FILE or PREPROCESSOR:FILE (canny, blur, grey, tile, inpaint, lines)");
  f.field("mask", mask, "an image that is white where the control counts; empty = everywhere");
  f.field("scale", scale, "strength; 0 = as without it", within(-10, 10));
  f.field("from", from, "share of the steps after which it begins", within(0, 1));
  f.field("to", to, "share of the steps after which it ends", within(0, 1));
  f.require(from <= to, "to", "must not be before `from`");
}

Tensor ControlledCall::weighed(const Tensor& residual) const {
  const Tensor r = scale == 1 ? residual : residual * scale;
  return mask.defined() ? r * at::adaptive_avg_pool2d(mask, {r.size(2), r.size(3)}).to(r.scalar_type()) : r;
}

void add_residual(std::map<std::string, Tensor, std::less<>>& residuals, const std::string& name, const Tensor& residual) {
  const auto [place, fresh] = residuals.emplace(name, residual);
  if (!fresh) place->second = place->second + residual;
}

}  // namespace brume
