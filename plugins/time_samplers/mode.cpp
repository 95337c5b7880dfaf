// Times with heavy tails (Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", eq. 20): uniform
// ones mapped by
//
//   share = 1 - u - scale (cos^2(pi u / 2) - 1 + u),   u ~ U(0, 1),   share of the schedule's time
//
// Above 0 the scale favours the middle, below it the ends; at 0 the shares are uniform.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/rand.h>

#include <cmath>
#include <numbers>

#include "brume/config/registry.h"
#include "brume/core/time_sampler.h"

namespace brume::plugins {
namespace {

class Mode final : public TimeSampler {
 public:
  struct Options {
    double scale = 1.29;
    void declare(Fields& f) {
      f.field("scale", scale, "above 0: the middle of the schedule's time more often than its ends; below: the ends", within(-1, 1.75));
    }
  };
  explicit Mode(const Options& o) : o_(o) {}

  Draw draw(const NoiseSchedule& schedule, int64_t count, const std::vector<Weight>&, at::Generator& random) const override {
    const Tensor uniform = at::rand({count}, random, at::TensorOptions().dtype(at::kDouble));
    Draw d{{}, std::vector<double>(size_t(count), 1.0)};
    for (int64_t i = 0; i < count; ++i) {
      const double u = 1 - uniform.data_ptr<double>()[i], c = std::cos(std::numbers::pi * u / 2);  // u in (0, 1]: the share is below 1
      d.sigmas.push_back(sigma_at_share(schedule, std::fmax(0, 1 - u - o_.scale * (c * c - 1 + u))));
    }
    return d;
  }

 private:
  Options o_;
};

}  // namespace

void register_time_sampler_mode(Registry& r) {
  r.add<TimeSampler, Mode>("mode", "the middle of the schedule's time, or its ends, more often, with heavy tails (SD3)");
}

}  // namespace brume::plugins
