#include "plot/levels.h"

#include <cmath>

namespace brume::tools {

std::vector<NoiseLevel> noise_levels(const NoiseSchedule& schedule, int intervals) {
  std::vector<NoiseLevel> levels;
  for (int i = 0; i <= intervals; ++i) {
    const double share = double(i) / intervals, time = schedule.t_min() + share * (schedule.t_max() - schedule.t_min());
    const double sigma = schedule.sigma(time);
    levels.push_back({share, time, schedule.signal(sigma), sigma, -2 * std::log(sigma), 1 / (1 + sigma * sigma)});
  }
  return levels;
}

}  // namespace brume::tools
