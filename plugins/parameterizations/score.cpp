// The network gives the score itself, the gradient of the log density of x (Song & Ermon 2019; Karras et al. 2022, eq. 3).
//
//   x0 = x + sigma^2 F
#include "brume/config/registry.h"
#include "brume/core/parameterization.h"

namespace brume::plugins {
namespace {

class Score final : public Parameterization {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit Score(const Options&) {}
  double c_skip(double) const override { return 1; }
  double c_out(double sigma) const override { return sigma * sigma; }
};

}  // namespace

void register_parameterization_score(Registry& r) {
  r.add<Parameterization, Score>("score", "the network gives the score itself (NCSN; diffusers' ScoreSdeVe)");
}

}  // namespace brume::plugins
