// Debiased estimation (Yu et al. 2024, "Unmasking Bias in Diffusion Model Training", eq. 9): 1 / sqrt(SNR) on the error of the noise, so
// that errors at high noise, which decide what an image shows, count as much as they harm. The SNR counts up to `max_snr`, as in
// kohya-ss/sd-scripts; that program's weight of an error of v, 1 / (SNR + 1), is another: {type: none} with `target: image`.
#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/objective.h"

namespace brume::plugins {
namespace {

class Debiased final : public Weighting {
 public:
  struct Options {
    double largest = 1000, max_snr = 1000;
    void declare(Fields& f) {
      f.field("largest", largest, "largest weight, reached towards pure noise", more_than(0));
      f.field("max_snr", max_snr, "SNR from which on the weight stays at 1 / sqrt(max_snr)", more_than(0));
    }
  };
  explicit Debiased(const Options& o) : o_(o) {}
  double weight(double sigma, Target target) const override {
    return std::min(std::max(sigma, 1 / std::sqrt(o_.max_snr)), o_.largest) * noise_units(sigma, target);
  }

 private:
  Options o_;
};

}  // namespace

void register_weighting_debiased(Registry& r) { r.add<Weighting, Debiased>("debiased", "1 / sqrt(SNR) on the error of the noise"); }

}  // namespace brume::plugins
