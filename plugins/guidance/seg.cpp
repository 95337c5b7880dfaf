// Smoothed energy guidance (Hong 2024, "Smoothed energy guidance: guiding diffusion models with reduced energy curvature of attention",
// sec. 4): away from the model whose chosen self-attention has queries blurred over the image.
//
//   D += scale (D_model - D_smoothed)   for sigma_lo < sigma <= sigma_hi
//
// The blur is Gaussian with reflected borders, over the grid of the tokens; without `blur` all queries are their mean.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/reflection_pad2d.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/perturbed.h"

namespace brume::plugins {
namespace {

/// q: [B, heads, N, d], N tokens of an image whose height is `ratio` times its width.
Tensor smoothed(const Tensor& q, const std::optional<double>& blur, double ratio) {
  if (!blur) return q.mean(at::IntArrayRef({2}), true).expand_as(q);
  const int64_t n = q.size(2), rows = std::max<int64_t>(1, std::lround(std::sqrt(double(n) * ratio))), columns = n / rows;
  if (rows * columns != n) throw ConfigError("seg: the tokens of this attention are not the grid of an image; leave blur out");
  const int64_t reach = std::min<int64_t>(int64_t(std::ceil(3 * *blur)), std::min(rows, columns) - 1);
  if (reach < 1) return q;
  const Tensor place = at::arange(-reach, reach + 1, q.options()), bell = (place * place * (-0.5 / (*blur * *blur))).exp();
  const Tensor line = bell / bell.sum();
  Tensor image = q.transpose(2, 3).reshape({-1, 1, rows, columns});
  image = at::reflection_pad2d(image, {reach, reach, reach, reach});
  image = at::conv2d(at::conv2d(image, line.view({1, 1, -1, 1})), line.view({1, 1, 1, -1}));
  return image.reshape({q.size(0), q.size(1), q.size(3), n}).transpose(2, 3);
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
