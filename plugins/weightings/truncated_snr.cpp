// Truncated SNR (Salimans & Ho 2022, "Progressive Distillation", sec. 4): the larger of the errors of the image and of the noise.
//
//   w = max(1, 1 / sigma^2) for an error of the image
#include <algorithm>

#include "brume/config/registry.h"
#include "brume/core/objective.h"

namespace brume::plugins {
namespace {

class TruncatedSnr final : public Weighting {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit TruncatedSnr(const Options&) {}
  double weight(double sigma, Target target) const override { return std::max(1.0, sigma * sigma) * noise_units(sigma, target); }
};

}  // namespace

void register_weighting_truncated_snr(Registry& r) {
  r.add<Weighting, TruncatedSnr>("truncated_snr", "the larger of the errors of image and noise (progressive distillation)");
}

}  // namespace brume::plugins
