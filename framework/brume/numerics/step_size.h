#pragma once
// What solvers with an adaptive step share.
#include <array>
#include <functional>

#include "brume/config/fields.h"
#include "brume/core/sampler.h"

namespace brume {

/// Gains of a PID controller (Söderlind 2003); the defaults are the elementary I controller.
struct PidOptions {
  double pcoeff = 0, icoeff = 1, dcoeff = 0, accept_safety = 0.81;
  void declare(Fields& f);
};

/// Sets the next step by the last three errors; as in k-diffusion, a factor of at least `accept_safety` accepts the step.
class PidController {
 public:
  PidController(const PidOptions& options, double order, double first_step);
  double step() const { return step_; }
  /// Returns true if a step with this error (1 = as large as allowed) stands. Changes the step either way.
  bool accepts(double error);

 private:
  PidOptions o_;
  double order_, step_;
  bool first_ = true;
  std::array<double, 3> inverse_errors_{};
};

/// Runs `solve` on the whole batch if `together`, else on one image after another, so that no image's steps depend on the
/// others; the run's observer is then called once per image.
Tensor image_by_image(const Tensor& x, bool together, Run& run, const std::function<Tensor(const Tensor& x, Run& run)>& solve);

}  // namespace brume
