// The network predicts the clean image.
//
//   x0 = F
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/parameterization.h"

namespace brume::plugins {
namespace {

class X0 final : public Parameterization {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit X0(const Options&) {}
  double c_skip(double) const override { return 0; }
  double c_out(double) const override { return 1; }
};

}  // namespace

void register_parameterization_x0(Registry& r) { r.add<Parameterization, X0>("x0", "the network predicts the clean image"); }

}  // namespace brume::plugins
