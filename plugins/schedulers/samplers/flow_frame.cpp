// Any sampler in the frame of flow matching (Lipman et al. 2023): it walks y = (1 - s) x0 + s noise by s as it would x by sigma, so that
// its polynomials and midpoints are those of s. ComfyUI runs k-diffusion's samplers on models of flow matching in this way.
//
//   s = sigma / (1 + sigma),  y = x / (1 + sigma);  x0 stays x0
#include <ATen/TensorOperators.h>

#include <algorithm>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"

namespace brume::plugins {
namespace {

/// The denoiser of the run, asked for y at s.
class InFlow final : public Denoiser {
 public:
  InFlow(const Denoiser& inner, const std::vector<double>& sigmas, const std::vector<double>& levels)
      : inner_(inner), sigmas_(sigmas), levels_(levels) {}
  Estimate denoise(const Tensor& y, double s, const Condition& condition) const override {
    const double sigma = sigma_at(s);
    return inner_.denoise(y * (1 + sigma), sigma, condition);
  }
  /// Returns the sigma of the run whose s this is, to the last bit; that of the formula for an s between.
  double sigma_at(double s) const {
    const auto level = std::find(levels_.begin(), levels_.end(), s);
    return level == levels_.end() ? s / (1 - s) : sigmas_[size_t(level - levels_.begin())];
  }

 private:
  const Denoiser& inner_;
  const std::vector<double>&sigmas_, &levels_;
};

class FlowFrame final : public Sampler {
 public:
  struct Options {
    std::shared_ptr<const Sampler> sampler;
    void declare(Fields& f) { f.field("sampler", sampler, "the sampler that takes s for its sigma", "dpm_2"); }
  };
  explicit FlowFrame(const Options& o) : o_(o) {}
  SamplerTraits traits() const override {
    SamplerTraits inner = o_.sampler->traits();
    inner.takes_gradient = false;
    return inner;
  }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    std::vector<double> levels;
    for (const double sigma : sigmas) levels.push_back(sigma / (1 + sigma));
    const InFlow inner(denoiser, sigmas, levels);
    Run walk{run.condition, run.noise, {}, run.schedule};
    walk.observer = [&](const Step& s) {
      const double sigma = inner.sigma_at(s.sigma);
      const Tensor at = s.x * (1 + sigma);
      return !run.observer || run.observer({s.index, s.count, sigma, at, s.x0});
    };
    const Tensor y = o_.sampler->sample(inner, x / (1 + sigmas.front()), levels, walk);
    return y * (1 + sigmas.back());
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_flow_frame(Registry& r) {
  r.add<Sampler, FlowFrame>("flow_frame", "any sampler in the frame of flow matching (ComfyUI)");
}

}  // namespace brume::plugins
