// Every training time as often as another (Ho et al. 2020, alg. 1): an integer of a discrete schedule, any time of a continuous one.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>

#include "brume/config/registry.h"
#include "brume/core/time_sampler.h"

namespace brume::plugins {
namespace {

class Uniform final : public TimeSampler {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit Uniform(const Options&) {}

  Draw draw(const NoiseSchedule& schedule, int64_t count, const std::vector<Weight>&, at::Generator& random) const override {
    const auto options = at::TensorOptions().dtype(at::kDouble);
    const Tensor t = schedule.timesteps() > 0
                         ? at::randint(schedule.timesteps(), {count}, random, options)
                         : at::rand({count}, random, options) * (schedule.t_max() - schedule.t_min()) + schedule.t_min();
    Draw d{{}, std::vector<double>(size_t(count), 1.0)};
    for (int64_t i = 0; i < count; ++i) d.sigmas.push_back(schedule.sigma(t.data_ptr<double>()[i]));
    return d;
  }
};

}  // namespace

void register_time_sampler_uniform(Registry& r) { r.add<TimeSampler, Uniform>("uniform", "every training time as often as another"); }

}  // namespace brume::plugins
