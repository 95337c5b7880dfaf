// The network predicts the velocity v = alpha eps - alpha sigma x0 (Salimans & Ho 2022, app. D).
//
//   x0 = x / (1 + sigma^2) - sigma / sqrt(1 + sigma^2) F
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/parameterization.h"

namespace brume::plugins {
namespace {

class V final : public Parameterization {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit V(const Options&) {}
  double c_skip(double sigma) const override { return 1 / (1 + sigma * sigma); }
  double c_out(double sigma) const override { return -sigma / std::sqrt(1 + sigma * sigma); }
};

}  // namespace

void register_parameterization_v(Registry& r) {
  r.add<Parameterization, V>("v", "the network predicts the velocity (progressive distillation)");
}

}  // namespace brume::plugins
