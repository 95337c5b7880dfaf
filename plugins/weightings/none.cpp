// L_simple (Ho et al. 2020, eq. 14): every noise level counts the same in the units of its target.
#include "brume/config/registry.h"
#include "brume/core/objective.h"

namespace brume::plugins {
namespace {

class None final : public Weighting {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit None(const Options&) {}
  double weight(double, Target) const override { return 1; }
};

}  // namespace

void register_weighting_none(Registry& r) { r.add<Weighting, None>("none", "1 in the units of the target"); }

}  // namespace brume::plugins
