// Low-discrepancy times (VDM, Kingma et al. 2021, app. I.1): one offset per batch, which the images divide evenly, so that the loss
// varies less from batch to batch. Each single time is uniform.
//
//   u_i = (u + i / B) mod 1,   u ~ U(0, 1)
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/rand.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/time_sampler.h"

namespace brume::plugins {
namespace {

class LowDiscrepancy final : public TimeSampler {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit LowDiscrepancy(const Options&) {}

  Draw draw(const NoiseSchedule& schedule, int64_t count, const std::vector<Weight>&, at::Generator& random) const override {
    const double u = at::rand({1}, random, at::TensorOptions().dtype(at::kDouble)).item<double>();
    Draw d{{}, std::vector<double>(size_t(count), 1.0)};
    for (int64_t i = 0; i < count; ++i) {
      const double share = u + double(i) / double(count);
      d.sigmas.push_back(sigma_at_share(schedule, share - std::floor(share)));
    }
    return d;
  }
};

}  // namespace

void register_time_sampler_low_discrepancy(Registry& r) {
  r.add<TimeSampler, LowDiscrepancy>("low_discrepancy", "one offset a batch, divided evenly (VDM)");
}

}  // namespace brume::plugins
