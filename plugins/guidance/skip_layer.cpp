// Skip-layer guidance (Hyung et al. 2024, "Spatiotemporal Skip Guidance for Enhanced Video Diffusion Sampling", eq. 8, with blocks of the
// network skipped; published for Stable Diffusion 3.5): away from what the model predicts without some of its blocks.
//
//   D += scale (D_model - D_skip)   for sigma_lo < sigma <= sigma_hi
//
// D is the inner estimate, with cfg if that comes before; D_model and D_skip are the model's own, with the condition. A skipped block
// gives its input as its output. Blocks are named as their weights are: `middle_block.1`, `output_blocks.4.1.transformer_blocks.0`.
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/registry.h"
#include "brume/config/suggest.h"
#include "brume/numerics/perturbed.h"

namespace brume::plugins {
namespace {

class SkipLayer final : public Guidance {
 public:
  struct Options : PerturbedOptions {
    void declare(Fields& f) {
      PerturbedOptions::declare(f, "names of the blocks to skip; blocks that change the shape of their input cannot be");
    }
  };
  explicit SkipLayer(const Options& o) : o_(o) {}

  void check(const Controls&) const override {
    if (o_.blocks.empty()) throw ConfigError("blocks: missing; the names of the blocks to skip, like [middle_block.1]");
  }

  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    if (!model.denoiser || model.tap_points.skippable.empty()) throw ConfigError("this model's network has no blocks that can be skipped");
    Taps taps;
    const std::vector<std::string>& known = model.tap_points.skippable;
    for (const std::string& block : o_.blocks) {
      if (std::find(known.begin(), known.end(), block) == known.end())
        throw ConfigError(fmt::format("blocks: '{}' cannot be skipped{}", block, hint(block, known)));
      taps.blocks[block] = [](const Tensor& input, const std::function<Tensor()>&) { return input; };
    }
    return perturbed(std::move(inner), model, std::move(taps), o_);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_skip_layer(Registry& r) {
  r.add<Guidance, SkipLayer>("skip_layer", "away from the model without some of its blocks (SLG)");
  r.preset<Guidance, SkipLayer>("slg", "skip_layer", "skip_layer at the scale of Stable Diffusion 3.5",
                                [](SkipLayer::Options& o) { o.scale = 2.8; });
}

}  // namespace brume::plugins
