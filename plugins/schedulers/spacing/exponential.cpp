// Steps in log sigma: even ones are "exponential" of k-diffusion and the log-SNR-uniform spacing of DPM-Solver (Lu et al. 2022a,
// sec. 3.4); rho other than 1 is k-diffusion's "polyexponential".
//
//   log sigma_i = log sigma_min + (1 - i/(n-1))^rho (log sigma_max - log sigma_min),  i = 0 ... n-1
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Exponential final : public Spacing {
 public:
  struct Options {
    double rho = 1;
    SigmaGrid grid;
    void declare(Fields& f) {
      f.field("rho", rho, "above 1: more steps at low noise", more_than(0));
      grid.declare(f);
    }
  };
  explicit Exponential(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    return o_.grid.sigmas(schedule, steps, [&](double r, double lo, double hi) {
      return std::exp(std::log(lo) + std::pow(r, o_.rho) * (std::log(hi) - std::log(lo)));
    });
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_exponential(Registry& r) {
  r.add<Spacing, Exponential>("exponential", "log sigma in equal steps, or polynomial ones");
  r.preset<Spacing, Exponential>("log_snr", "exponential", "log-SNR in equal steps, ending at the smallest sigma (DPM-Solver)",
                                 [](Exponential::Options& o) { o.grid.inclusive = false, o.grid.final_sigma = FinalSigma::minimum; });
}

}  // namespace brume::plugins
