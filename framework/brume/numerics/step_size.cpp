#include "brume/numerics/step_size.h"

#include <ATen/ops/cat.h>

#include <cmath>

namespace brume {

void PidOptions::declare(Fields& f) {
  f.field("pcoeff", pcoeff, "proportional gain of the step size control");
  f.field("icoeff", icoeff, "integral gain");
  f.field("dcoeff", dcoeff, "derivative gain");
  f.field("accept_safety", accept_safety, "a step is accepted if the control would shrink the next one by no more than this factor",
          within(0.01, 1));
}

PidController::PidController(const PidOptions& options, double order, double first_step) : o_(options), order_(order), step_(first_step) {}

bool PidController::accepts(double error) {
  const double inverse = 1 / (error + 1e-8);
  if (first_) inverse_errors_.fill(inverse), first_ = false;
  inverse_errors_[0] = inverse;
  const double p = o_.pcoeff, i = o_.icoeff, d = o_.dcoeff;
  const double wanted = std::pow(inverse_errors_[0], (p + i + d) / order_) * std::pow(inverse_errors_[1], -(p + 2 * d) / order_) *
                        std::pow(inverse_errors_[2], d / order_);
  const double factor = 1 + std::atan(wanted - 1);
  step_ *= factor;
  if (factor < o_.accept_safety) return false;
  inverse_errors_[2] = inverse_errors_[1];
  inverse_errors_[1] = inverse_errors_[0];
  return true;
}

Tensor image_by_image(const Tensor& x, bool together, Run& run, const std::function<Tensor(const Tensor&, Run&)>& solve) {
  const int64_t count = x.size(0);
  if (together || count == 1) return solve(x, run);
  std::vector<Tensor> images;
  for (int64_t i = 0; i < count; ++i) {
    const Condition condition = run.condition.slice(i, 1);
    Run one{condition, run.noise, {}, run.schedule};
    images.push_back(solve(x.narrow(0, i, 1), one));
    run.report({i, count, 0, images.back(), images.back()});
  }
  return at::cat(images);
}

}  // namespace brume
