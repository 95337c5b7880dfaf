// P2 weighting (Choi et al. 2022, eq. 8): 1 / (k + SNR)^gamma on the error of the noise.
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/objective.h"

namespace brume::plugins {
namespace {

class P2 final : public Weighting {
 public:
  struct Options {
    double gamma = 1, k = 1;
    void declare(Fields& f) {
      f.field("gamma", gamma, "strength of the down-weighting of low noise", at_least(0));
      f.field("k", k, "keeps the weight of high noise finite", more_than(0));
    }
  };
  explicit P2(const Options& o) : o_(o) {}
  double weight(double sigma, Target target) const override {
    return std::pow(o_.k + 1 / (sigma * sigma), -o_.gamma) * noise_units(sigma, target);
  }

 private:
  Options o_;
};

}  // namespace

void register_weighting_p2(Registry& r) { r.add<Weighting, P2>("p2", "1 / (k + SNR)^gamma on the error of the noise"); }

}  // namespace brume::plugins
