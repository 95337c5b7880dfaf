// Smoothed energy guidance (Hong 2024, "Smoothed energy guidance: guiding diffusion models with reduced energy curvature of attention",
// sec. 4): away from the model whose chosen self-attention has queries blurred over the image.
//
//   D += scale (D_model - D_smoothed)   for sigma_lo < sigma <= sigma_hi
//
// The blur is Gaussian with reflected borders, over the grid of the tokens, and reaches as far as in the authors' program: ceil(6 blur)
// div 2 tokens, at most half of the grid. Without `blur` all queries are their mean.
#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/blur.h"
#include "brume/numerics/perturbed.h"

namespace brume::plugins {
namespace {

/// q: [B, heads, N, d], N tokens of an image whose height is `ratio` times its width.
Tensor smoothed(const Tensor& q, const std::optional<double>& blur, double ratio) {
  if (!blur) return q.mean(at::IntArrayRef({2}), true).expand_as(q);
  const auto grid = token_grid(q.size(2), ratio);
  if (!grid) throw ConfigError("seg: the tokens of this attention are not the grid of an image; leave blur out");
  const Tensor image = q.transpose(2, 3).reshape({q.size(0), -1, grid->first, grid->second});
  const int64_t reach = std::min(int64_t(std::ceil(6 * *blur)) / 2, std::min(grid->first, grid->second) / 2);
  const Tensor blurred = gaussian_blur(image, *blur, reach);
  return blurred.reshape({q.size(0), q.size(1), q.size(3), q.size(2)}).transpose(2, 3);
}

class Seg final : public Guidance {
 public:
  struct Options : PerturbedOptions {
    std::optional<double> blur;
    Options() { scale = 3; }
    void declare(Fields& f) {
      PerturbedOptions::declare(f, "names of the attention to smooth, self-attention alone");
      f.field("blur", blur, "standard deviation of the blur in tokens; null = without end", more_than(0));
      f.unused(!steers(), "blur", "scale is 0");
    }
  };
  explicit Seg(const Options& o) : o_(o) {}
  void check(const Controls&) const override { o_.check("middle_block.1"); }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    const double ratio = model.shape.width > 0 ? double(model.shape.height) / double(model.shape.width) : 1;
    const auto attention = [blur = o_.blur, ratio](const Tensor& q, const Tensor& k, const Tensor& v) {
      if (q.size(2) != k.size(2)) throw ConfigError("seg: blocks: an attention to a prompt was named, and self-attention is smoothed");
      const Tensor logits = at::matmul(smoothed(q, blur, ratio), k.transpose(2, 3)) * (1 / std::sqrt(double(q.size(3))));
      return at::matmul(logits.softmax(-1), v);
    };
    return perturbed(std::move(inner), model, attention_taps(model, o_, attention), o_);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_seg(Registry& r) { r.add<Guidance, Seg>("seg", "away from the model with smoothed self-attention (SEG)"); }

}  // namespace brume::plugins
