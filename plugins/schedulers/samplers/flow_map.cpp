// Steps of models that know how far they go (MeanFlow, Geng et al. 2025, alg. 2; shortcut models, Frans et al. 2025, alg. 2).
//
//   z_r = z_t - h u(z_t, t, h),   h = t - r,   z = x / (1 + sigma),   t = sigma / (1 + sigma);   with u = (z - D) / t that is
//   x' = D + (to/from)(x - D),   D: of a network that receives h (conditioner `interval`)
//
// Of models that take no h it is DDIM, which is Euler's method.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/extra_vector.h"

namespace brume::plugins {
namespace {

class FlowMap final : public Sampler {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit FlowMap(const Options&) {}
  SamplerTraits traits() const override { return {.order = 1}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1, width = vector_width(run.condition);
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const double h = from / (1 + from) - to / (1 + to);
      const bool knows = width > 0 && width % 2 == 0;
      const Condition condition =
          knows ? with_vector(run.condition,
                              interval_features(at::full({x.size(0)}, h, at::TensorOptions().dtype(at::kDouble).device(x.device())), width))
                : run.condition;
      const Tensor x0 = denoiser.denoise(x, from, condition).x0;
      run.report({i, steps, from, x, x0});
      x = x0 + (x - x0) * (to / from);
    }
    return x;
  }
};

}  // namespace

void register_sampler_flow_map(Registry& r) {
  r.add<Sampler, FlowMap>("flow_map", "steps of models that know their length (mean_flow, shortcut)");
}

}  // namespace brume::plugins
