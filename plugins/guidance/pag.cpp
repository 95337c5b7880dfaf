// Perturbed-attention guidance (Ahn et al. 2024, "Self-rectifying diffusion sampling with perturbed-attention guidance", eq. 12): away from
// the model whose chosen self-attention looks at nothing but the place itself, so that it returns its values.
//
//   D += scale (D_model - D_perturbed)   for sigma_lo < sigma <= sigma_hi
#include <ATen/core/Tensor.h>

#include "brume/config/registry.h"
#include "brume/numerics/perturbed.h"

namespace brume::plugins {
namespace {

class Pag final : public Guidance {
 public:
  struct Options : PerturbedOptions {
    Options() { scale = 3; }
    void declare(Fields& f) { PerturbedOptions::declare(f, "names of the attention to perturb, self-attention alone"); }
  };
  explicit Pag(const Options& o) : o_(o) {}
  void check(const Controls&) const override { o_.check("middle_block.1"); }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    const auto identity = [](const Tensor& q, const Tensor&, const Tensor& v) {
      if (q.size(2) != v.size(2)) throw ConfigError("pag: blocks: an attention to a prompt was named, and self-attention is perturbed");
      return v;
    };
    return perturbed(std::move(inner), model, attention_taps(model, o_, identity), o_);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_pag(Registry& r) { r.add<Guidance, Pag>("pag", "away from the model without self-attention (PAG)"); }

}  // namespace brume::plugins
