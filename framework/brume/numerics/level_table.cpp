#include "brume/numerics/level_table.h"

#include <algorithm>
#include <cmath>

namespace brume {

LevelTable::LevelTable(const NoiseSchedule& schedule, int64_t times)
    : schedule_(schedule),
      size_(schedule.timesteps() > 0 ? schedule.timesteps() : times),
      flow_(schedule.timesteps() == 0 && std::abs(schedule.signal(1) - 0.5) < 1e-9 && std::abs(schedule.signal(3) - 0.25) < 1e-9) {}

double LevelTable::within(double sigma) const {
  return std::clamp(sigma, schedule_.sigma(schedule_.t_min()), schedule_.sigma(schedule_.t_max()));
}

double LevelTable::sigma(int64_t i) const {
  if (schedule_.timesteps() > 0) return schedule_.sigma(double(i));
  if (flow_) return within(schedule_.sigma(double(i + 1) / double(size_)));
  const double share = double(i) / double(std::max<int64_t>(1, size_ - 1));
  return within(schedule_.sigma(schedule_.t_min() + share * (schedule_.t_max() - schedule_.t_min())));
}

double LevelTable::first_time() const { return flow_ ? value(sigma(0)) : schedule_.t_min(); }
double LevelTable::last_time() const { return flow_ ? 1 : schedule_.t_max(); }
double LevelTable::at(double time) const { return within(schedule_.sigma(time)); }

double LevelTable::of_value(double value) const { return within(flow_ ? value / std::max(1 - value, 1e-300) : value); }

}  // namespace brume
