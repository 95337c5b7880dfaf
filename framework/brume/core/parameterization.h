#pragma once
// The meaning of the network's output.
//
// How to write one:
//   1. Derive a final class from Parameterization with a nested `Options` (its fields, `declare(Fields&)`), made from those options.
//   2. Implement `c_skip()` and `c_out()` as functions of sigma; the training target follows from them.
//   3. Override `c_in()` if the network's frame is not the schedule's.
//   4. Let each be finite for every sigma > 0, and c_out not 0.
//   5. Put it into plugins/parameterizations/NAME.cpp, which ends with `register_parameterization_NAME`.
//   6. Read plugins/parameterizations/v.cpp as an example; `brume new parameterization NAME` writes another.
//   7. Run test_contracts --gtest_filter='*Parameterization*NAME*' and `brume conform parameterization NAME`.
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
  /// Returns the factor of x in the network's input: the schedule's signal rate, unless a parameterization has its own.
  virtual double c_in(double sigma, const NoiseSchedule& schedule) const { return schedule.signal(sigma); }
};

}  // namespace brume
