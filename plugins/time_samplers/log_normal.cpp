// Log-normal noise levels (EDM, Karras et al. 2022, table 1): training spends its time at the levels at which images take shape.
//
//   log sigma ~ N(mean, std^2), kept within the schedule's range
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randn.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/time_sampler.h"

namespace brume::plugins {
namespace {

class LogNormal final : public TimeSampler {
 public:
  struct Options {
    double mean = -1.2, std = 1.2;
    void declare(Fields& f) {
      f.field("mean", mean, "mean of log sigma (EDM's P_mean)");
      f.field("std", std, "standard deviation of log sigma (EDM's P_std)", more_than(0));
    }
  };
  explicit LogNormal(const Options& o) : o_(o) {}

  Draw draw(const NoiseSchedule& schedule, int64_t count, const std::vector<Weight>&, at::Generator& random) const override {
    const Tensor normal = at::randn({count}, random, at::TensorOptions().dtype(at::kDouble));
    Draw d{{}, std::vector<double>(size_t(count), 1.0)};
    for (int64_t i = 0; i < count; ++i)
      d.sigmas.push_back(within_schedule(schedule, std::exp(o_.mean + o_.std * normal.data_ptr<double>()[i])));
    return d;
  }

 private:
  Options o_;
};

}  // namespace

void register_time_sampler_log_normal(Registry& r) { r.add<TimeSampler, LogNormal>("log_normal", "log sigma is normal (EDM)"); }

}  // namespace brume::plugins
