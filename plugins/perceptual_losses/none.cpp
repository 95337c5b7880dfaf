// No perceptual loss: only pixels count.
#include <ATen/ops/zeros.h>

#include "brume/config/registry.h"
#include "brume/core/perceptual_loss.h"

namespace brume::plugins {
namespace {

class None final : public PerceptualLoss {
 public:
  static constexpr bool neutral = true;
  struct Options {
    void declare(Fields&) {}
  };
  None(const Options&, const Context&) {}
  Tensor distance(const Tensor& a, const Tensor&) const override { return at::zeros({a.size(0)}, a.options()); }
};

}  // namespace

void register_perceptual_loss_none(Registry& r) {
  r.add<PerceptualLoss, None>("none", "0: only pixels count");
  r.renamed_kind("perceptual", std::string(PerceptualLoss::kind));
}

}  // namespace brume::plugins
