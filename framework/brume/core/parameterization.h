#pragma once
// What the network's output means.
#include <string_view>

#include "brume/core/noise_schedule.h"

namespace brume {

/// D(x) = c_skip x + c_out F(c_in x), the four functions of Karras et al. 2022, eq. 7. The training target of F follows:
/// F* = ((1 - c_skip) x0 - c_skip sigma noise) / c_out.
class Parameterization {
 public:
  static constexpr std::string_view kind = "parameterization";
  virtual ~Parameterization() = default;
  virtual double c_skip(double sigma) const = 0;
  virtual double c_out(double sigma) const = 0;
  /// The network's frame is the schedule's unless a parameterization has its own.
  virtual double c_in(double sigma, const NoiseSchedule& schedule) const { return schedule.signal(sigma); }
};

}  // namespace brume
