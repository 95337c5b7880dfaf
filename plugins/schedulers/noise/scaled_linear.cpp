// The schedule of latent diffusion (Rombach et al. 2022; Stable Diffusion).
//
//   sqrt(beta_t) from sqrt(beta_start) to sqrt(beta_end) in equal steps
#include <cmath>

#include "config/registry.h"
#include "core/noise_schedule.h"
#include "numerics/beta_table.h"

namespace brume::plugins {
namespace {

class ScaledLinear final : public NoiseSchedule {
 public:
  struct Options {
    int64_t timesteps = 1000;
    double beta_start = 0.00085, beta_end = 0.012;
    void declare(Fields& f) {
      f.field("timesteps", timesteps, "number of training times T", at_least(2));
      f.field("beta_start", beta_start, "beta at t = 0", within(1e-12, 1));
      f.field("beta_end", beta_end, "beta at t = T - 1", within(1e-12, 1));
      f.require(beta_start <= beta_end, "beta_start", "must not exceed beta_end");
    }
  };
  explicit ScaledLinear(const Options& o) : table_(betas(o)) {}

  double sigma(double t) const override { return table_.sigma(t); }
  double time(double sigma) const override { return table_.time(sigma); }
  double t_min() const override { return 0; }
  double t_max() const override { return double(table_.size() - 1); }
  int64_t timesteps() const override { return table_.size(); }

 private:
  static std::vector<double> betas(const Options& o) {
    std::vector<double> betas = linspace(std::sqrt(o.beta_start), std::sqrt(o.beta_end), o.timesteps);
    for (double& b : betas) b *= b;
    return betas;
  }
  BetaTable table_;
};

}  // namespace

void register_noise_scaled_linear(Registry& r) {
  r.add<NoiseSchedule, ScaledLinear>("scaled_linear", "square roots of beta in equal steps (Stable Diffusion)");
}

}  // namespace brume::plugins
