// The network predicts the noise (Ho et al. 2020).
//
//   x0 = x - sigma F
#include <cmath>

#include "config/registry.h"
#include "core/parameterization.h"

namespace brume::plugins {
namespace {

class Eps final : public Parameterization {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit Eps(const Options&) {}
  double c_skip(double) const override { return 1; }
  double c_out(double sigma) const override { return -sigma; }
};

}  // namespace

void register_parameterization_eps(Registry& r) { r.add<Parameterization, Eps>("eps", "the network predicts the noise (DDPM)"); }

}  // namespace brume::plugins
