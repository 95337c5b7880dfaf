// The sigmoid schedule of GeoDiff (Xu et al. 2022), as diffusers has it.
//
//   beta_t = beta_start + (beta_end - beta_start) sigmoid(u), u from -6 to 6 in equal steps
#include <cmath>

#include "config/registry.h"
#include "core/noise_schedule.h"
#include "numerics/beta_table.h"

namespace brume::plugins {
namespace {

class Sigmoid final : public NoiseSchedule {
 public:
  struct Options {
    int64_t timesteps = 1000;
    double beta_start = 1e-4, beta_end = 0.02;
    void declare(Fields& f) {
      f.field("timesteps", timesteps, "number of training times T", at_least(2));
      f.field("beta_start", beta_start, "beta towards t = 0", within(1e-12, 1));
      f.field("beta_end", beta_end, "beta towards t = T - 1", within(1e-12, 1));
      f.require(beta_start <= beta_end, "beta_start", "must not exceed beta_end");
    }
  };
  explicit Sigmoid(const Options& o) : table_(betas(o)) {}

  double sigma(double t) const override { return table_.sigma(t); }
  double time(double sigma) const override { return table_.time(sigma); }
  double t_min() const override { return 0; }
  double t_max() const override { return double(table_.size() - 1); }
  int64_t timesteps() const override { return table_.size(); }

 private:
  static std::vector<double> betas(const Options& o) {
    std::vector<double> betas = linspace(-6, 6, o.timesteps);
    for (double& b : betas) b = o.beta_start + (o.beta_end - o.beta_start) / (1 + std::exp(-b));
    return betas;
  }
  BetaTable table_;
};

}  // namespace

void register_noise_sigmoid(Registry& r) { r.add<NoiseSchedule, Sigmoid>("sigmoid", "sigmoid of beta (GeoDiff)"); }

}  // namespace brume::plugins
