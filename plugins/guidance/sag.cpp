// Self-attention guidance (Hong et al. 2023, "Improving sample quality of diffusion models using self-attention guidance", eq. 12 and 15):
// away from what the model makes of x if the places that it attends to most are blurred.
//
//   A: the attention that each place receives, the mean over heads of sum over queries softmax(q k^T / sqrt(d)), 1 on average
//   D' = D_0 + [A > threshold] (blur(D_0) - D_0),   x' = x + D' - D_0,   D += scale (D' - D_0(x'))
//
// D is the inner estimate and D_0 the model's own, without the condition if the model has such an estimate. The noise x - D_0 stays, so
// that the last term is scale (eps(x) - eps(x')) in the noise that the network predicts. The map A is enlarged to the size of x; of
// several blocks it is the mean.
#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/upsample_nearest2d.h>

#include <cmath>
#include <utility>

#include "brume/config/registry.h"
#include "brume/numerics/blur.h"
#include "brume/numerics/perturbed.h"

namespace brume::plugins {
namespace {

struct SagOptions : PerturbedOptions {
  SagOptions() { scale = 0.75; }
  double threshold = 1, blur = 1;
};

/// Keeps the attention maps of the calls of this thread's networks, [B, tokens] each, while it lives.
class Watch {
 public:
  Watch() : outer_(std::exchange(innermost, this)) {}
  ~Watch() { innermost = outer_; }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  std::vector<Tensor> maps;

  /// Attention that is watched.
  static Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v) {
    if (q.size(2) != k.size(2)) throw ConfigError("sag: blocks: an attention to a prompt was named, and self-attention is needed");
    const Tensor shares = (at::matmul(q, k.transpose(2, 3)) * (1 / std::sqrt(double(q.size(3))))).softmax(-1);
    if (innermost) {
      std::vector<Tensor> rows;  // image by image: a reduction over rows rounds by the number of rows
      const at::ScalarType type = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      for (int64_t i = 0; i < q.size(0); ++i) rows.push_back(shares[i].to(type).sum(0).sum(0) / double(q.size(1)));
      innermost->maps.push_back(at::stack(rows));
    }
    return at::matmul(shares, v);
  }

 private:
  static thread_local Watch* innermost;
  Watch* outer_;
};
thread_local Watch* Watch::innermost = nullptr;

class SagDenoiser final : public Denoiser {
 public:
  SagDenoiser(std::shared_ptr<const Denoiser> inner, std::shared_ptr<const Denoiser> own, const SagOptions& o, const GuidedModel& model)
      : inner_(std::move(inner)), own_(std::move(own)), o_(o), scale_(o, model.schedule) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    Estimate d = inner_->denoise(x, sigma, condition);
    const double scale = scale_(sigma);
    if (scale == 0) return d;
    const Condition& asked = condition.null ? *condition.null : condition;
    Watch watch;
    const Tensor clean = own_->denoise(x, sigma, asked).x0;
    if (watch.maps.empty()) return d;  // the network did not come to the block
    const Tensor salient = (attention_received(watch.maps, x) > o_.threshold).to(x.scalar_type());
    const Tensor degraded = clean + (gaussian_blur(clean, o_.blur, reach) - clean) * salient;
    d.x0 = d.x0 + (degraded - own_->denoise(x + (degraded - clean), sigma, asked).x0) * scale;
    return d;
  }

 private:
  static constexpr int64_t reach = 4;  // nine pixels, as published

  /// Returns a, [B, 1, H, W].
  static Tensor attention_received(const std::vector<Tensor>& maps, const Tensor& x) {
    Tensor sum;
    for (const Tensor& map : maps) {
      const auto grid = token_grid(map.size(1), double(x.size(2)) / double(x.size(3)));
      if (!grid || map.size(0) != x.size(0)) throw ConfigError("sag: the tokens of this attention are not the grid of an image");
      const Tensor large = at::upsample_nearest2d(map.view({-1, 1, grid->first, grid->second}), {x.size(2), x.size(3)});
      sum = sum.defined() ? sum + large : large;
    }
    return sum / double(maps.size());
  }
  std::shared_ptr<const Denoiser> inner_, own_;
  SagOptions o_;
  ScaleAt scale_;
};

class Sag final : public Guidance {
 public:
  struct Options : SagOptions {
    void declare(Fields& f) {
      PerturbedOptions::declare(f, "names of the attention to watch, self-attention alone");
      f.field("threshold", threshold, "attention of the places that are blurred, 1 = the average", at_least(0));
      f.field("blur", blur, "standard deviation of the blur in pixels of x", more_than(0));
      f.unused(!steers(), {"threshold", "blur"}, "scale is 0");
    }
  };
  explicit Sag(const Options& o) : o_(o) {}
  void check(const Controls&) const override { o_.check("middle_block.1"); }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const override {
    return std::make_shared<SagDenoiser>(std::move(inner), model.denoiser(attention_taps(model, o_, Watch::attention)), o_, model);
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_sag(Registry& r) { r.add<Guidance, Sag>("sag", "away from the model with blurred salient places (SAG)"); }

}  // namespace brume::plugins
