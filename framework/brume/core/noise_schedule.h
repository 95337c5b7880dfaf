#pragma once
// The noise level at training time t.
//
// How to write one:
//   1. Derive a final class from NoiseSchedule with a nested `Options` (its fields, `declare(Fields&)`), made from those options.
//   2. Implement `sigma()`, increasing in t, and `time()`, its inverse, with `t_min()` and `t_max()`.
//   3. A discrete schedule is a list of betas: numerics/discrete_schedule.h does the rest.
//   4. Override `signal()` and `start_std()` unless the process is variance preserving.
//   5. Put it into plugins/schedulers/noise/NAME.cpp, which ends with `register_noise_NAME`.
//   6. Read plugins/schedulers/noise/cosine.cpp as an example; `brume new noise_schedule NAME` writes another.
//   7. Run test_contracts --gtest_filter='*NoiseSchedule*NAME*' and `brume conform noise_schedule NAME`.
#include <cmath>
#include <cstdint>
#include <string_view>

namespace brume {

/// Maps training time t to sigma, the noise-to-signal ratio, and back. With alpha the signal rate of the papers,
/// x_t = alpha x0 + alpha sigma eps, so sigma = sqrt((1 - alpha_bar) / alpha_bar) for the variance-preserving ones.
class NoiseSchedule {
 public:
  static constexpr std::string_view kind = "noise_schedule";
  virtual ~NoiseSchedule() = default;

  /// Returns sigma at time t in [t_min, t_max]; increasing in t. Discrete schedules interpolate log sigma between their integers.
  virtual double sigma(double t) const = 0;
  /// Returns the inverse of sigma(t), clamped to [t_min, t_max].
  virtual double time(double sigma) const = 0;
  virtual double t_min() const = 0;
  virtual double t_max() const = 0;
  /// Returns the number of training times of a discrete schedule (t = 0 ... timesteps - 1); 0 for a continuous one.
  virtual int64_t timesteps() const { return 0; }

  /// Returns c_noise of networks whose quantity is the timestep.
  virtual double timestep(double sigma) const { return time(sigma); }

  /// Returns alpha(sigma): the network's frame is alpha * x. Variance-preserving unless a schedule says otherwise.
  virtual double signal(double sigma) const { return 1 / std::sqrt(1 + sigma * sigma); }
  /// Returns the standard deviation of x at the start of sampling.
  virtual double start_std(double sigma) const { return std::sqrt(1 + sigma * sigma); }
};

}  // namespace brume
