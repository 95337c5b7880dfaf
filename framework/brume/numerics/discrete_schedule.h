#pragma once
// The discrete schedules: a table of noise levels, one a training time, made by their options.
#include "brume/core/noise_schedule.h"
#include "brume/numerics/beta_table.h"

namespace brume {

/// `O` has the parameters and `BetaTable table() const`.
template <class O>
class DiscreteSchedule final : public NoiseSchedule {
 public:
  using Options = O;
  explicit DiscreteSchedule(const Options& o) : table_(o.table()) {}

  double sigma(double t) const override { return table_.sigma(t); }
  double time(double sigma) const override { return table_.time(sigma); }
  double t_min() const override { return 0; }
  double t_max() const override { return double(table_.size() - 1); }
  int64_t timesteps() const override { return table_.size(); }

 private:
  BetaTable table_;
};

}  // namespace brume
