#include "brume/numerics/perturbed.h"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/errors.h"
#include "brume/config/suggest.h"

namespace brume {
namespace {

class PerturbedDenoiser final : public Denoiser {
 public:
  PerturbedDenoiser(std::shared_ptr<const Denoiser> inner, std::shared_ptr<const Denoiser> own, std::shared_ptr<const Denoiser> other,
                    ScaleAt scale)
      : inner_(std::move(inner)), own_(std::move(own)), other_(std::move(other)), scale_(std::move(scale)) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    Estimate d = inner_->denoise(x, sigma, condition);
    const double scale = scale_(sigma);
    if (scale == 0) return d;
    const Tensor whole = own_ == inner_ ? d.x0 : own_->denoise(x, sigma, condition).x0;
    d.x0 = d.x0 + (whole - other_->denoise(x, sigma, condition).x0) * scale;
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_, own_, other_;
  ScaleAt scale_;
};

}  // namespace

void PerturbedOptions::declare(Fields& f, const char* what) {
  f.field("blocks", blocks, what);
  GuidanceScale::declare(f, "0 = the inner estimate, more = further away from the perturbed model");
  f.unused(!steers(), "blocks", "scale is 0");
}

void PerturbedOptions::check(const char* example) const {
  if (blocks.empty()) throw ConfigError(fmt::format("blocks: missing; names of blocks, like [{}]", example));
}

std::shared_ptr<const Denoiser> perturbed(std::shared_ptr<const Denoiser> inner, const GuidedModel& model, Taps taps,
                                          const PerturbedOptions& options) {
  return std::make_shared<PerturbedDenoiser>(std::move(inner), model.denoiser({}), model.denoiser(std::move(taps)),
                                             ScaleAt(options, model.schedule));
}

Taps attention_taps(const GuidedModel& model, const PerturbedOptions& options, const Taps::Attention& attention) {
  const std::vector<std::string>& known = model.tap_points.attention;
  if (!model.denoiser || known.empty()) throw ConfigError("this model's network has no attention that can be changed");
  Taps taps;
  for (const std::string& block : options.blocks) {
    if (std::find(known.begin(), known.end(), block) == known.end())
      throw ConfigError(fmt::format("blocks: the network has no attention '{}'{}", block, hint(block, known)));
    taps.attention[block] = attention;
  }
  return taps;
}

}  // namespace brume
