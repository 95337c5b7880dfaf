#pragma once
// How noisy an image is at training time t.
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

  /// sigma at time t in [t_min, t_max]; increasing in t. Discrete schedules interpolate log sigma between their integers.
  virtual double sigma(double t) const = 0;
  /// The inverse of sigma(t), clamped to [t_min, t_max].
  virtual double time(double sigma) const = 0;
  virtual double t_min() const = 0;
  virtual double t_max() const = 0;
  /// Number of training times of a discrete schedule (t = 0 ... timesteps - 1); 0 for a continuous one.
  virtual int64_t timesteps() const { return 0; }

  /// What a network that is told the timestep is told.
  virtual double timestep(double sigma) const { return time(sigma); }

  /// alpha(sigma): the network's frame is alpha * x. Variance-preserving unless a schedule says otherwise.
  virtual double signal(double sigma) const { return 1 / std::sqrt(1 + sigma * sigma); }
  /// Standard deviation of x where sampling starts.
  virtual double start_std(double sigma) const { return std::sqrt(1 + sigma * sigma); }
};

}  // namespace brume
