// No distance of what is seen: pixels alone count.
#include <ATen/ops/zeros.h>

#include "brume/config/registry.h"
#include "brume/core/perceptual.h"

namespace brume::plugins {
namespace {

class None final : public Perceptual {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  None(const Options&, const Context&) {}
  Tensor distance(const Tensor& a, const Tensor&) const override { return at::zeros({a.size(0)}, a.options()); }
};

}  // namespace

void register_perceptual_none(Registry& r) { r.add<Perceptual, None>("none", "0: pixels alone count"); }

}  // namespace brume::plugins
