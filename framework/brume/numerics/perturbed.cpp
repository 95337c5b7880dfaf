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
                    const PerturbedOptions& o)
      : inner_(std::move(inner)), own_(std::move(own)), other_(std::move(other)), o_(o) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    Estimate d = inner_->denoise(x, sigma, condition);
    if (o_.scale == 0 || sigma <= o_.sigma_lo || (o_.sigma_hi && sigma > *o_.sigma_hi)) return d;
    const Tensor whole = own_ == inner_ ? d.x0 : own_->denoise(x, sigma, condition).x0;
    d.x0 = d.x0 + (whole - other_->denoise(x, sigma, condition).x0) * o_.scale;
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_, own_, other_;
  PerturbedOptions o_;
};

}  // namespace

void PerturbedOptions::declare(Fields& f, const char* what) {
  f.field("blocks", blocks, what);
  f.field("scale", scale, "0 = the inner estimate, more = further away from the perturbed model", at_least(0));
  f.field("sigma_lo", sigma_lo, "guide above this noise level only", at_least(0));
  f.field("sigma_hi", sigma_hi, "guide up to this noise level only", more_than(0));
  f.require(!sigma_hi || *sigma_hi > sigma_lo, "sigma_hi", "must be more than sigma_lo");
  f.unused(scale == 0, {"blocks", "sigma_lo", "sigma_hi"}, "scale is 0");
}

void PerturbedOptions::check(const char* example) const {
  if (blocks.empty()) throw ConfigError(fmt::format("blocks: missing; names of blocks, like [{}]", example));
}

std::shared_ptr<const Denoiser> perturbed(std::shared_ptr<const Denoiser> inner, const GuidedModel& model, Taps taps,
                                          const PerturbedOptions& options) {
  return std::make_shared<PerturbedDenoiser>(std::move(inner), model.denoiser({}), model.denoiser(std::move(taps)), options);
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
