#include <cmath>

#include "config/errors.h"
#include "core/noise_embedding.h"
#include "core/objective.h"
#include "core/sampler.h"

namespace brume {

double noise_quantity(NoiseQuantity quantity, double sigma, const NoiseSchedule& schedule) {
  switch (quantity) {
    case NoiseQuantity::timestep: return schedule.time(sigma);
    case NoiseQuantity::variance: return 1 / (1 + 1 / (sigma * sigma));
    case NoiseQuantity::log_snr: return -2 * std::log(sigma);
  }
  throw std::logic_error("unknown noise quantity");
}

double noise_units(double sigma, Target target) {
  const double snr = 1 / (sigma * sigma);
  switch (target) {
    case Target::noise: return 1;
    case Target::image: return snr;
    case Target::v: return snr / (1 + snr);
  }
  throw std::logic_error("unknown target");
}

void Run::report(const Step& step) const {
  if (observer && !observer(step)) throw Interrupted();
}

}  // namespace brume
