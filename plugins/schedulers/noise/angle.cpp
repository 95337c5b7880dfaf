// A continuous variance-preserving schedule: the diffusion angle moves evenly (Béres 2022, "Denoising Diffusion Implicit
// Models", Keras examples).
//
//   signal = cos(a), noise = sin(a), sigma = tan(a),   a(t) = (1 - t) acos(max_signal) + t acos(min_signal),  t in [0, 1]
#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/noise_schedule.h"

namespace brume::plugins {
namespace {

class Angle final : public NoiseSchedule {
 public:
  struct Options {
    double min_signal = 0.02, max_signal = 0.95;
    void declare(Fields& f) {
      f.field("min_signal", min_signal, "signal rate at t = 1", within(1e-6, 1));
      f.field("max_signal", max_signal, "signal rate at t = 0", within(1e-6, 1 - 1e-12));
      f.require(min_signal < max_signal, "min_signal", "must be less than max_signal");
    }
  };
  explicit Angle(const Options& o) : start_(std::acos(o.max_signal)), end_(std::acos(o.min_signal)) {}

  double sigma(double t) const override { return std::tan(start_ + std::clamp(t, 0.0, 1.0) * (end_ - start_)); }
  double time(double sigma) const override { return std::clamp((std::atan(sigma) - start_) / (end_ - start_), 0.0, 1.0); }
  double t_min() const override { return 0; }
  double t_max() const override { return 1; }

 private:
  double start_, end_;
};

}  // namespace

void register_noise_angle(Registry& r) { r.add<NoiseSchedule, Angle>("angle", "continuous; the diffusion angle moves evenly (Béres)"); }

}  // namespace brume::plugins
