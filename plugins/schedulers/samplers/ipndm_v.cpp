// IPNDM with variable steps (Zhang & Chen 2023, app. on iPNDM; the weights of ComfyUI's ipndm_v): Adams-Bashforth on the slopes in sigma.
//
//   x' = x + h0 sum_j w_j d_(i-j),  d = (x - D) / sigma,  h0 = to - sigma, h1, h2, h3: the steps before
//
// From order 3 on the weights are the published ones, which leave out a factor of 1/2 of the exact ones (`lms` has those).
#include <ATen/TensorOperators.h>

#include <algorithm>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/exponential.h"

namespace brume::plugins {
namespace {

class IpndmV final : public Sampler {
 public:
  struct Options {
    int64_t order = 4;
    void declare(Fields& f) { f.field("order", order, "slopes used", within(1, 4)); }
  };
  explicit IpndmV(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.order == 2 ? 2 : 1}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    std::vector<Tensor> slopes;   // the newest first
    std::vector<double> lengths;  // of the steps, the one to come first
    for (int64_t i = 0; i < steps; ++i) {
      const double sigma = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, sigma, run.condition).x0;
      run.report({i, steps, sigma, x, x0});
      if (to == 0) return x0;
      if (to == sigma) continue;
      slopes.insert(slopes.begin(), (x - x0) / sigma);
      lengths.insert(lengths.begin(), to - sigma);
      if (int64_t(slopes.size()) > o_.order) slopes.pop_back(), lengths.pop_back();
      x = x + weighted_sum(weights(lengths), slopes) * (to - sigma);
    }
    return x;
  }

 private:
  static std::vector<double> weights(const std::vector<double>& h) {
    if (h.size() == 1) return {1};
    const double half = h[0] / (2 * h[1]);
    if (h.size() == 2) return {1 + half, -half};
    const double h01 = h[0] + h[1], h12 = h[1] + h[2];
    const double t1 = (1 - h[0] / (3 * h01) * (h[0] * h01) / (h[1] * h12)) / 2, r = h[1] / h[2];
    if (h.size() == 3) return {1 + half + t1, -half - (1 + r) * t1, t1 * r};
    const double h012 = h01 + h[2], h23 = h[2] + h[3], h123 = h12 + h[3];
    const double t2 = ((1 - h[0] / (3 * h01)) / 2 + (1 - h[0] / (2 * h01)) * h[0] / (6 * h012)) * h[0] * h01 * h012 / (h[1] * h12 * h123);
    const double q = h[1] * h12 / (h[2] * h23);
    return {1 + half + t1 + t2, -half - (1 + r) * t1 - (1 + r + q) * t2, t1 * r + (r + q * (1 + h[2] / h[3])) * t2, -t2 * q * h[1] / h[2]};
  }
  Options o_;
};

}  // namespace

void register_sampler_ipndm_v(Registry& r) { r.add<Sampler, IpndmV>("ipndm_v", "IPNDM with weights for variable steps, order 1 to 4"); }

}  // namespace brume::plugins
