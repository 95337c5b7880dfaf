// Predictor-corrector sampling of the variance-exploding process (Song et al. 2021b, alg. 2): at each sigma, steps of Langevin
// dynamics, then one of the reverse-time SDE ("reverse diffusion" predictor).
//
//   corrector: x <- x + e s + sqrt(2 e) z,  s = (x0 - x) / sigma^2,  e = 2 (snr |z| / |s|)^2
//   predictor: x <- x + g^2 s + g z,  g^2 = from^2 - to^2
#include <ATen/TensorOperators.h>
#include <ATen/ops/norm.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/stochastic.h"

namespace brume::plugins {
namespace {

class PredictorCorrector final : public Sampler {
 public:
  struct Options {
    double snr = 0.15;
    int64_t corrections = 1;
    bool batch_norm = false;
    void declare(Fields& f) {
      f.field("snr", snr, "size of a Langevin step against the score", more_than(0));
      f.field("corrections", corrections, "Langevin steps at each sigma", at_least(0));
      f.choice("norms", batch_norm, "|z| and |s| of each image, or their means over the batch as in the authors' code",
               {{"image", false}, {"batch", true}});
      f.unused(corrections == 0, {"snr", "norms"}, "corrections is 0");
    }
  };
  explicit PredictorCorrector(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor before = x;
      for (int64_t k = 0; k < o_.corrections; ++k) x = corrected(denoiser, x, from, run);
      const Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, before, x0});
      x = reverse_diffusion(x, x0, from, to, i + 1 < steps ? &run.noise : nullptr);
    }
    return x;
  }

 private:
  Tensor corrected(const Denoiser& denoiser, const Tensor& x, double sigma, Run& run) const {
    const Tensor score = (denoiser.denoise(x, sigma, run.condition).x0 - x) / (sigma * sigma);
    const Tensor z = run.noise.draw(x, sigma, sigma);
    const Tensor of_score = norm(score), ratio = (norm(z) / of_score).masked_fill(of_score == 0, 0),
                 size = ratio * ratio * (2 * o_.snr * o_.snr);
    return x + score * size + z * (size * 2).sqrt();
  }
  /// Returns [B, 1, …]
  Tensor norm(const Tensor& v) const {
    std::vector<int64_t> shape(size_t(v.dim()), 1);
    shape[0] = v.size(0);
    const Tensor each = v.reshape({v.size(0), -1}).norm(2, 1).view(shape);
    return o_.batch_norm ? each.mean() : each;
  }
  Options o_;
};

}  // namespace

void register_sampler_predictor_corrector(Registry& r) {
  r.add<Sampler, PredictorCorrector>("predictor_corrector", "Langevin corrections and reverse-SDE steps");
}

}  // namespace brume::plugins
