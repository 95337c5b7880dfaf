// Min-SNR weighting (Hang et al. 2023): min(SNR, gamma) on the error of x0, that is min(SNR, gamma) / SNR on the noise and
// min(SNR, gamma) / (SNR + 1) on v.
#include <algorithm>

#include "brume/config/registry.h"
#include "brume/core/objective.h"

namespace brume::plugins {
namespace {

class MinSnr final : public Weighting {
 public:
  struct Options {
    double gamma = 5;
    void declare(Fields& f) { f.field("gamma", gamma, "SNR above which an image counts no more", more_than(0)); }
  };
  explicit MinSnr(const Options& o) : o_(o) {}
  double weight(double sigma, Target target) const override { return std::min(1.0, o_.gamma * sigma * sigma) * noise_units(sigma, target); }

 private:
  Options o_;
};

}  // namespace

void register_weighting_min_snr(Registry& r) { r.add<Weighting, MinSnr>("min_snr", "min(SNR, gamma) on the error of x0"); }

}  // namespace brume::plugins
