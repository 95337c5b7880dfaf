// alpha_bar falls exponentially ("exp" of diffusers).
//
//   alpha_bar(u) = e^(-rate u),  beta_t = min(1 - alpha_bar((t+1)/T) / alpha_bar(t/T), max_beta)
#include <cmath>

#include "config/registry.h"
#include "core/noise_schedule.h"
#include "numerics/beta_table.h"

namespace brume::plugins {
namespace {

class Exponential final : public NoiseSchedule {
 public:
  struct Options {
    int64_t timesteps = 1000;
    double rate = 12, max_beta = 0.999;
    void declare(Fields& f) {
      f.field("timesteps", timesteps, "number of training times T", at_least(2));
      f.field("rate", rate, "-log alpha_bar at t = T", more_than(0));
      f.field("max_beta", max_beta, "upper bound of beta", within(1e-6, 0.999999));
    }
  };
  explicit Exponential(const Options& o) : table_(betas_of([&](double u) { return std::exp(-o.rate * u); }, o.timesteps, o.max_beta)) {}

  double sigma(double t) const override { return table_.sigma(t); }
  double time(double sigma) const override { return table_.time(sigma); }
  double t_min() const override { return 0; }
  double t_max() const override { return double(table_.size() - 1); }
  int64_t timesteps() const override { return table_.size(); }

 private:
  BetaTable table_;
};

}  // namespace

void register_noise_exponential(Registry& r) { r.add<NoiseSchedule, Exponential>("exponential", "alpha_bar falls exponentially"); }

}  // namespace brume::plugins
