// The network predicts the noise (Ho et al. 2020), or minus the noise, which is sigma times the score (Song et al. 2021).
//
//   x0 = x - sigma F,   or   x0 = x + sigma F
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/parameterization.h"

namespace brume::plugins {
namespace {

class Eps final : public Parameterization {
 public:
  enum class Sign { noise, score };
  struct Options {
    Sign sign = Sign::noise;
    void declare(Fields& f) {
      f.choice("sign", sign, "meaning of F: the noise, or sigma times the score, which is minus the noise (score SDE's VE networks)",
               {{"noise", Sign::noise}, {"score", Sign::score}});
    }
  };
  explicit Eps(const Options& o) : sign_(o.sign == Sign::noise ? 1 : -1) {}
  double c_skip(double) const override { return 1; }
  double c_out(double sigma) const override { return -sign_ * sigma; }

 private:
  double sign_;
};

}  // namespace

void register_parameterization_eps(Registry& r) { r.add<Parameterization, Eps>("eps", "the network predicts the noise (DDPM)"); }

}  // namespace brume::plugins
