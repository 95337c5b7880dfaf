// Logit-normal times (Stable Diffusion 3, Esser et al. 2024, sec. 3.1): the middle of a flow more often than its ends.
//
//   u = 1 / (1 + exp(-(mean + std n))),   n ~ N(0, 1),   u the share of the schedule's time
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randn.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/time_sampler.h"

namespace brume::plugins {
namespace {

class LogitNormal final : public TimeSampler {
 public:
  struct Options {
    double mean = 0, std = 1;
    void declare(Fields& f) {
      f.field("mean", mean, "mean of the logit of time: below 0 favours low noise; diffusers' logit_mean has the other sign");
      f.field("std", std, "standard deviation of the logit of time", more_than(0));
    }
  };
  explicit LogitNormal(const Options& o) : o_(o) {}

  Draw draw(const NoiseSchedule& schedule, int64_t count, const std::vector<Weight>&, at::Generator& random) const override {
    const Tensor normal = at::randn({count}, random, at::TensorOptions().dtype(at::kDouble));
    Draw d{{}, std::vector<double>(size_t(count), 1.0)};
    for (int64_t i = 0; i < count; ++i)
      d.sigmas.push_back(sigma_at_share(schedule, 1 / (1 + std::exp(-(o_.mean + o_.std * normal.data_ptr<double>()[i])))));
    return d;
  }

 private:
  Options o_;
};

}  // namespace

void register_time_sampler_logit_normal(Registry& r) {
  r.add<TimeSampler, LogitNormal>("logit_normal", "the middle of the schedule's time more often than its ends (SD3)");
}

}  // namespace brume::plugins
