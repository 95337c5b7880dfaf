// Skip-layer guidance (Hyung et al. 2024, "Spatiotemporal Skip Guidance for Enhanced Video Diffusion Sampling", eq. 8, with blocks of the
// network skipped; published for Stable Diffusion 3.5): away from what the model predicts without some of its blocks.
//
//   D += scale (D_model - D_skip)   for sigma_lo < sigma <= sigma_hi
//
// D is the inner estimate, with cfg if that comes before; D_model and D_skip are the model's own, with the condition. A skipped block
// gives its input as its output. Blocks are named as their weights are: `middle_block.1`, `output_blocks.4.1.transformer_blocks.0`.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "brume/config/registry.h"
#include "brume/config/suggest.h"
#include "brume/core/guidance.h"

namespace brume::plugins {
namespace {

struct SkipLayerOptions {
  std::vector<std::string> blocks{};
  double scale = 1, sigma_lo = 0;
  std::optional<double> sigma_hi{};
};

class SkipLayerDenoiser final : public Denoiser {
 public:
  SkipLayerDenoiser(std::shared_ptr<const Denoiser> inner, std::shared_ptr<const Denoiser> own, std::shared_ptr<const Denoiser> skipping,
                    const SkipLayerOptions& o)
      : inner_(std::move(inner)), own_(std::move(own)), skipping_(std::move(skipping)), o_(o) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    Estimate d = inner_->denoise(x, sigma, condition);
    if (o_.scale == 0 || sigma <= o_.sigma_lo || (o_.sigma_hi && sigma > *o_.sigma_hi)) return d;
    const Tensor whole = own_ == inner_ ? d.x0 : own_->denoise(x, sigma, condition).x0;
    d.x0 = d.x0 + (whole - skipping_->denoise(x, sigma, condition).x0) * o_.scale;
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_, own_, skipping_;
  SkipLayerOptions o_;
};

class SkipLayer final : public Guidance {
 public:
  struct Options : SkipLayerOptions {
    void declare(Fields& f) {
      f.field("blocks", blocks, "names of the blocks to skip; blocks that change the shape of their input cannot be");
      f.field("scale", scale, "0 = the inner estimate, more = further away from the model without those blocks", at_least(0));
      f.field("sigma_lo", sigma_lo, "guide above this noise level only", at_least(0));
      f.field("sigma_hi", sigma_hi, "guide up to this noise level only", more_than(0));
      f.require(!sigma_hi || *sigma_hi > sigma_lo, "sigma_hi", "must be more than sigma_lo");
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
    return std::make_shared<SkipLayerDenoiser>(std::move(inner), model.denoiser({}), model.denoiser(std::move(taps)), o_);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_skip_layer(Registry& r) {
  r.add<Guidance, SkipLayer>("skip_layer", "away from the model without some of its blocks (SLG)");
}

}  // namespace brume::plugins
