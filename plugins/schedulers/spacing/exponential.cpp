// Steps in log sigma: even ones are "exponential" of k-diffusion and the log-SNR-uniform spacing of DPM-Solver (Lu et al. 2022a,
// sec. 3.4); rho other than 1 is k-diffusion's "polyexponential".
//
//   log sigma_i = log sigma_min + (1 - i/(n-1))^rho (log sigma_max - log sigma_min),  i = 0 ... n-1
#include <fmt/format.h>

#include <cmath>

#include "config/registry.h"
#include "core/spacing.h"
#include "numerics/beta_table.h"
#include "numerics/timesteps.h"

namespace brume::plugins {
namespace {

struct ExponentialOptions {
  double rho = 1;
  SigmaRange range;
  bool inclusive = true;
  FinalSigma final_sigma = FinalSigma::zero;
  void declare(Fields& f) {
    f.field("rho", rho, "above 1: more steps at low noise", more_than(0));
    range.declare(f);
    declare_inclusive(f, inclusive);
    declare_final(f, final_sigma);
  }
};
/// DPM-Solver's: the run ends at the last level of the grid.
struct LogSnrOptions : ExponentialOptions {
  LogSnrOptions() { inclusive = false, final_sigma = FinalSigma::minimum; }
};

template <class O>
class Exponential final : public Spacing {
 public:
  using Options = O;
  explicit Exponential(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const auto [lo, hi] = o_.range.of(schedule);
    const double low = std::log(lo), high = std::log(hi);
    std::vector<double> sigmas = linspace(1, 0, steps + !o_.inclusive);
    for (double& s : sigmas) s = std::exp(low + std::pow(s, o_.rho) * (high - low));
    if (!o_.inclusive) sigmas.pop_back();
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_exponential(Registry& r) {
  r.add<Spacing, Exponential<ExponentialOptions>>("exponential", "log sigma in equal steps, or polynomial ones");
  r.add<Spacing, Exponential<LogSnrOptions>>("log_snr", "log-SNR in equal steps, ending at the smallest sigma (DPM-Solver)");
}

}  // namespace brume::plugins
