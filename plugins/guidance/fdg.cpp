// Frequency-decoupled guidance (Sadat et al. 2025, "Guidance in the frequency domain enables high-fidelity sampling at low CFG scales"):
// cfg with a scale for each level of a Laplacian pyramid of x0, the finest first.
//
//   L_i = G_i - up(G_(i+1)), G_(i+1) = down(G_i);   each level: L = L_uncond + scale_i d,   d = w_i d_parallel + d_orthogonal   to L_cond
//
// down: 5 x 5 binomial blur, then bilinear halving; up: bilinear doubling, then the blur. Equal scales are cfg.
#include <ATen/TensorOperators.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/reflection_pad2d.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/registry.h"
#include "brume/core/guidance.h"
#include "brume/numerics/per_image.h"

namespace brume::plugins {
namespace {

struct FdgOptions {
  std::vector<double> scales{10, 5}, parallel_weights{};
  double rescale = 0;
  bool rescale_levels = false;
  bool off() const {
    return parallel_weights.empty() && rescale == 0 &&
           std::all_of(scales.begin(), scales.end(), [&](double s) { return s == scales.front(); });
  }
};

Tensor blurred(const Tensor& x) {
  const int64_t channels = x.size(1);
  const Tensor row = at::tensor({1.0, 4.0, 6.0, 4.0, 1.0}, x.options()) / 16;
  const Tensor kernel = (row.unsqueeze(1) * row.unsqueeze(0)).expand({channels, 1, 5, 5});
  return at::conv2d(at::reflection_pad2d(x, {2, 2, 2, 2}), kernel, Tensor(), at::IntArrayRef({1, 1}), at::IntArrayRef({0, 0}),
                    at::IntArrayRef({1, 1}), channels);
}
Tensor down(const Tensor& x) { return at::upsample_bilinear2d(blurred(x), {x.size(2) / 2, x.size(3) / 2}, false); }
Tensor up(const Tensor& x, const Tensor& like) { return blurred(at::upsample_bilinear2d(x, {like.size(2), like.size(3)}, false)); }

std::vector<Tensor> pyramid(const Tensor& x, size_t levels) {
  std::vector<Tensor> parts;
  Tensor rest = x;
  for (size_t i = 0; i + 1 < levels; ++i) {
    const Tensor coarse = down(rest);
    parts.push_back(rest - up(coarse, rest));
    rest = coarse;
  }
  parts.push_back(rest);
  return parts;
}

class FdgDenoiser final : public Denoiser {
 public:
  FdgDenoiser(std::shared_ptr<const Denoiser> inner, const FdgOptions& o) : inner_(std::move(inner)), o_(o) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    if (o_.off() && o_.scales.front() == 1) return inner_->denoise(x, sigma, condition);
    const EstimatePair e = denoise_both(*inner_, x, sigma, condition, "fdg");
    Estimate d = e.with;
    d.gradient = extrapolate(e.without.gradient, e.with.gradient, o_.scales.front());
    d.x0 = o_.off() ? extrapolate(e.without.x0, e.with.x0, o_.scales.front()) : combined(e.with.x0, e.without.x0);
    return d;
  }

 private:
  Tensor combined(const Tensor& with, const Tensor& without) const {
    const int64_t least = 3 << (o_.scales.size() - 2);
    if (std::min(with.size(2), with.size(3)) < least)
      throw ConfigError(
          fmt::format("fdg: {} scales need sides of at least {}, and x is {} by {}", o_.scales.size(), least, with.size(2), with.size(3)));
    const std::vector<Tensor> c = pyramid(with, o_.scales.size()), u = pyramid(without, o_.scales.size());
    Tensor sum;
    for (size_t i = c.size(); i-- > 0;) {
      Tensor shift = c[i] - u[i];
      if (!o_.parallel_weights.empty()) {
        const Tensor parallel = image_parallel(shift, c[i]);
        shift = shift - parallel + parallel * o_.parallel_weights[i];
      }
      Tensor level = u[i] + shift * o_.scales[i];
      if (o_.rescale > 0 && o_.rescale_levels) level = rescaled_to(level, c[i], o_.rescale);
      sum = sum.defined() ? up(sum, level) + level : level;
    }
    return o_.rescale > 0 && !o_.rescale_levels ? rescaled_to(sum, with, o_.rescale) : sum;
  }
  std::shared_ptr<const Denoiser> inner_;
  FdgOptions o_;
};

class Fdg final : public Guidance {
 public:
  struct Options : FdgOptions {
    void declare(Fields& f) {
      f.field("scales", scales, "scale of each level of the pyramid, the finest first", at_least(0));
      f.field("parallel_weights", parallel_weights, "share of the parallel part of the difference, per level; none = all of it");
      f.field("rescale", rescale, "share of the result that is rescaled to the spread of the conditional estimate", within(0, 1));
      f.choice("rescale_in", rescale_levels, "where it is rescaled: the whole, or each level", {{"data", false}, {"levels", true}});
      f.unused(rescale == 0, "rescale_in", "rescale is 0");
      f.require(scales.size() > 1 && scales.size() <= 8, "scales", "must be 2 to 8 numbers");
      f.require(parallel_weights.empty() || parallel_weights.size() == scales.size(), "parallel_weights", "must be one per scale");
    }
  };
  explicit Fdg(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.uses_null = true}; }
  void check(const Controls& controls) const override { need_null(controls, "fdg"); }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel&) const override {
    return std::make_shared<FdgDenoiser>(std::move(inner), o_);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_fdg(Registry& r) { r.add<Guidance, Fdg>("fdg", "cfg with a scale per band of frequencies"); }

}  // namespace brume::plugins
