// Ancestral sampling of DDPM (Ho et al. 2020, alg. 2) with the variances of Improved DDPM (Nichol & Dhariwal 2021, sec. 3.1).
//
// In the sigma frame, from `from` to `to`:
//   mean  = x0 + (to/from)^2 (x - x0)
//   small = to^2 (1 - (to/from)^2)                          posterior variance, "beta tilde"
//   large = (from^2 - to^2) (1 + to^2) / (1 + from^2)       "beta"
//   learned_range: log var = v log large + (1 - v) log small,  v = (network + 1) / 2
//   learned: the network gives log var in its own frame
//
// Classifier guidance as Dhariwal & Nichol (2021, alg. 1) have it shifts the mean by variance times gradient, both in the network's
// frame; here the ratio of the frames, signal(to) / signal(from), remains. At the last step, which adds no noise, "small" is taken from
// the step before (guided-diffusion's posterior_log_variance_clipped).
#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>

#include <cmath>

#include "brume/config/errors.h"
#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/ancestral.h"

namespace brume::plugins {
namespace {

enum class Variance { small, large, learned, learned_range };

class Ddpm final : public Sampler {
 public:
  struct Options {
    Variance variance = Variance::small;
    void declare(Fields& f) {
      f.choice("variance", variance, "variance of the noise added at each step",
               {{"small", Variance::small},
                {"large", Variance::large},
                {"learned", Variance::learned},
                {"learned_range", Variance::learned_range}});
    }
  };
  explicit Ddpm(const Options& o) : o_(o) {}
  SamplerTraits traits() const override {
    return {.variance = o_.variance == Variance::learned         ? LearnedVariance::learned
                        : o_.variance == Variance::learned_range ? LearnedVariance::learned_range
                                                                 : LearnedVariance::none,
            .takes_gradient = true};
  }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Estimate d = denoiser.denoise(x, from, run.condition);
      if (!d.variance.defined() && (o_.variance == Variance::learned || o_.variance == Variance::learned_range))
        throw ConfigError("this model has no learned variance; choose variance: small or large");
      const Tensor clean = d.gradient.defined() ? d.x0 - d.gradient * (from * from) : d.x0;
      run.report({i, steps, from, x, clean});
      const double keep = (to / from) * (to / from);
      x = clean + (x - clean) * keep;
      if (d.gradient.defined() && to < from) x = x + d.gradient * shift(d, i > 0 ? sigmas[size_t(i) - 1] : INFINITY, from, to, x);
      if (to > 0 && to < from) x = x + run.noise.draw(x, from, to) * noise_std(d, from, to, x);
    }
    return x;
  }

 private:
  /// Returns the standard deviation of the fresh noise.
  Tensor noise_std(const Estimate& d, double from, double to, const Tensor& like) const {
    const double small = small_variance(from, to), large = large_variance(from, to);
    if (o_.variance == Variance::small) return like.new_full({}, std::sqrt(small));
    if (o_.variance == Variance::large) return like.new_full({}, std::sqrt(large));
    if (o_.variance == Variance::learned) return (d.variance * 0.5).exp() * std::sqrt(1 + to * to);
    const Tensor v = (d.variance + 1) * 0.5;
    return ((v * std::log(large) + (1 - v) * std::log(small)) * 0.5).exp();
  }
  /// Returns what the gradient of a classifier is multiplied by.
  Tensor shift(const Estimate& d, double before, double from, double to, const Tensor& like) const {
    const double frames = std::sqrt((1 + from * from) / (1 + to * to));
    if (to > 0 || o_.variance == Variance::learned) return noise_std(d, from, to, like).pow(2) * frames;
    if (o_.variance == Variance::small) return like.new_zeros({});
    const double large = from * from / (1 + from * from), small = large * (1 - (from / before) * (from / before));
    if (o_.variance == Variance::large) return like.new_full({}, small * frames);
    const Tensor v = (d.variance + 1) * 0.5;
    return (v * std::log(large) + (1 - v) * std::log(small)).exp() * frames;
  }
  Options o_;
};

}  // namespace

void register_sampler_ddpm(Registry& r) { r.add<Sampler, Ddpm>("ddpm", "DDPM: ancestral sampling, small, large or learned variance"); }

}  // namespace brume::plugins
