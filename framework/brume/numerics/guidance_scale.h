#pragma once
// The scale of a guidance over a run: within an interval of noise levels (Kynkaanniemi et al. 2024), and along a curve.
#include <memory>
#include <optional>

#include "brume/core/noise_schedule.h"

namespace brume {
class Fields;

/// A scale that grows or falls from step to step, u = step / (steps - 1):
///
///   minimum + (scale - minimum) f(u),   falling: f = 1 - u,  cos(pi u / 2),  cos(u),  1 - u^power;   rising: 1 minus that
///
/// They are the modes of mcmonkeyprojects' "dynamic thresholding". Outside a run u is the share of the training times that is done.
struct ScaleCurve {
  enum class Shape { linear, cosine, half_cosine, power };
  Shape shape = Shape::cosine;
  bool rising = false;
  std::optional<double> minimum{};
  double power = 2;
  void declare(Fields& f);
  /// Returns the scale at a noise level. `neutral`: the minimum if none is set.
  double at(double scale, double neutral, double sigma, const NoiseSchedule& schedule) const;
};

/// Options of guidances that a scale of `neutral` turns off.
struct GuidanceScale {
  double neutral = 1, scale = 1, sigma_lo = 0;
  std::optional<double> sigma_hi{};
  std::optional<ScaleCurve> curve{};
  /// Declares the options. `what`: the description of `scale`.
  void declare(Fields& f, const char* what);
  /// Returns false if the scale is neutral at every level.
  bool steers() const { return scale != neutral || (curve && curve->minimum.value_or(neutral) != neutral); }
};

/// The scale of a guidance at each level; neutral outside its interval.
class ScaleAt {
 public:
  ScaleAt(const GuidanceScale& options, std::shared_ptr<const NoiseSchedule> schedule)
      : options_(options), schedule_(std::move(schedule)) {}
  double operator()(double sigma) const;

 private:
  GuidanceScale options_;
  std::shared_ptr<const NoiseSchedule> schedule_;
};

}  // namespace brume
