// Quantiles of a Laplace distribution of log sigma (Hang et al. 2024, "Improved noise schedule for diffusion training", table 1).
//
//   sigma_i = exp(mu - beta sign(1/2 - x) log(1 - 2 |1/2 - x| + 1e-5)),  x = i / (steps - 1),  within [sigma_min, sigma_max]
#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/beta_table.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Laplace final : public Spacing {
 public:
  struct Options {
    double mu = 0, beta = 0.5;
    SigmaRange range;
    bool merge = false;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("mu", mu, "log sigma around which the steps gather");
      f.field("beta", beta, "spread of log sigma", more_than(0));
      range.declare(f);
      declare_merge(f, merge);
      declare_final(f, final_sigma);
    }
  };
  explicit Laplace(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const auto [lo, hi] = o_.range.of(schedule);
    std::vector<double> sigmas;
    for (const double x : linspace(0, 1, steps)) {
      const double side = x < 0.5 ? 1 : x > 0.5 ? -1 : 0, quantile = std::log(1 - 2 * std::abs(0.5 - x) + 1e-5);
      sigmas.push_back(std::clamp(std::exp(o_.mu - o_.beta * side * quantile), lo, hi));
    }
    return merged_levels(with_final(std::move(sigmas), schedule, o_.final_sigma), o_.merge);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_laplace(Registry& r) { r.add<Spacing, Laplace>("laplace", "quantiles of a Laplace distribution of log sigma"); }

}  // namespace brume::plugins
