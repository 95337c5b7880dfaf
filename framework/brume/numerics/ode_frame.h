#pragma once
// The frames in which the probability-flow ODE is written in the literature. The paths are the same; a solver's steps are not.
#include <optional>

#include "brume/core/noise_schedule.h"
#include "brume/core/tensor.h"

namespace brume {
class Fields;

/// y = s x as a function of u. EDM: u = sigma, s = 1; the VE process (Song et al. 2021b): u = sigma^2, s = 1; the VP process:
/// u = t, s = the signal rate; flow matching (Lipman et al. 2023): u = sigma / (1 + sigma), s = 1 / (1 + sigma).
struct Frame {
  enum class Time { sigma, variance, flow, schedule };
  enum class Scale { none, flow, schedule };
  Time time = Time::sigma;
  Scale scale = Scale::none;
  void declare(Fields& f);

  /// One point of a path, with what turns an estimate of x0 into the slope there.
  struct Point {
    double sigma, u, scale;
    double sigma_rate;             ///< d sigma / d u
    double log_scale;              ///< d log(scale) / d u
    std::optional<double> of_x{};  ///< factor of x in the slope, if it is known in closed form
    /// Returns dy / du = log_scale y + scale sigma_rate (x - x0) / sigma (Karras et al. 2022, eq. 81).
    Tensor slope(const Tensor& x, const Tensor& x0) const;
  };
  /// Returns the point of the path at sigma. `schedule` is needed if time or scale say so; its derivatives are taken numerically (to about
  /// 1e-11).
  Point at(double sigma, const NoiseSchedule* schedule) const;
  /// Returns sigma at u, the inverse of at(sigma).u.
  double sigma(double u, const NoiseSchedule* schedule) const;
};

}  // namespace brume
