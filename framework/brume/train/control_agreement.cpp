#include "brume/train/control_agreement.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>

#include <limits>

#include "brume/image/control_image.h"
#include "brume/numerics/image_quality.h"

namespace brume {

void ControlAgreement::add(const Tensor& images, const Tensor& hints) {
  const Tensor found = control_images(as_8_bits(images.cpu()), preprocessor_), wanted = hints.cpu();
  images_ += images.size(0);
  errors_ += (found - wanted).abs().to(at::kDouble).flatten(1).mean(1).sum().item<double>();
  const Tensor a = (found > 0.5).flatten(1), b = (wanted > 0.5).flatten(1);
  const Tensor both = a.logical_and(b).sum(1).to(at::kDouble), either = a.logical_or(b).sum(1).to(at::kDouble);
  overlaps_ += at::where(either > 0, both / either.clamp_min(1), at::ones_like(both)).sum().item<double>();
}

double ControlAgreement::error() const { return errors_ / double(images_); }

double ControlAgreement::overlap() const {
  return preprocessor_ == "canny" ? overlaps_ / double(images_) : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace brume
