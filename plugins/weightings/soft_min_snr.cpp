// Soft min-SNR weighting (Crowson et al. 2024, "Hourglass Diffusion Transformers", sec. 3.4; k-diffusion's soft-min-snr): min-SNR without
// the corner.
//
//   w = 1 / (sigma^2 + sigma_data^2) on the error of x0: SNR at high noise, 1 / sigma_data^2 at low noise
#include "brume/config/registry.h"
#include "brume/core/objective.h"

namespace brume::plugins {
namespace {

class SoftMinSnr final : public Weighting {
 public:
  struct Options {
    double sigma_data = 1;
    void declare(Fields& f) { f.field("sigma_data", sigma_data, "1 / sigma_data^2 is the most an image counts", more_than(0)); }
  };
  explicit SoftMinSnr(const Options& o) : variance_(o.sigma_data * o.sigma_data) {}
  double weight(double sigma, Target target) const override {
    return sigma * sigma / (sigma * sigma + variance_) * noise_units(sigma, target);
  }

 private:
  double variance_;
};

}  // namespace

void register_weighting_soft_min_snr(Registry& r) {
  r.add<Weighting, SoftMinSnr>("soft_min_snr", "SNR / (1 + sigma_data^2 SNR) on the error of x0 (k-diffusion)");
}

}  // namespace brume::plugins
