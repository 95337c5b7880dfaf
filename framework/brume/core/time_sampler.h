#pragma once
// Which noise levels a training step looks at.
#include <string_view>
#include <vector>

#include "brume/core/network.h"
#include "brume/core/noise_schedule.h"

namespace at {
struct Generator;
}

namespace brume {

/// Draws one noise level an image. A value: what a sampler remembers from step to step stands in `memory`, which belongs to the
/// training.
class TimeSampler {
 public:
  static constexpr std::string_view kind = "time_sampler";

  struct Draw {
    std::vector<double> sigmas;   ///< within the schedule's range
    std::vector<double> weights;  ///< on the losses, of mean 1: they undo what an importance sampler did to the expectation
  };

  virtual ~TimeSampler() = default;
  /// `memory`: as memory() made it and learn() left it; `random`: a CPU generator, the only randomness.
  virtual Draw draw(const NoiseSchedule& schedule, int64_t count, const std::vector<Weight>& memory, at::Generator& random) const = 0;
  /// Fresh tensors for a training on this schedule, to be saved and restored bit for bit; none where nothing is remembered.
  virtual std::vector<Weight> memory(const NoiseSchedule&) const { return {}; }
  /// Told the loss of each image, [B], before weighting.
  virtual void learn(const NoiseSchedule&, const Draw&, const Tensor& /*losses*/, const std::vector<Weight>& /*memory*/) const {}
};

/// The schedule's sigma at the share u of [0, 1) of its training times; of a discrete schedule, at the integer floor(u T).
double sigma_at_share(const NoiseSchedule& schedule, double u);
/// sigma, or the nearest that the schedule has.
double within_schedule(const NoiseSchedule& schedule, double sigma);

}  // namespace brume
