// Linear multistep (Adams-Bashforth) in sigma ("LMS" of k-diffusion): the slopes of the last steps, integrated as a polynomial.
//
//   x' = x + sum_j d_(i-j) int_sigma^to L_j(s) ds,   L_j: the Lagrange polynomials through the last sigmas
#include <ATen/TensorOperators.h>

#include <algorithm>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/exponential.h"

namespace brume::plugins {
namespace {

class Lms final : public Sampler {
 public:
  struct Options {
    int64_t order = 4;
    bool euler_at_final = false;
    void declare(Fields& f) {
      f.field("order", order, "slopes used", within(1, 6));
      f.field("euler_at_final", euler_at_final, "a last step to sigma = 0 is one of Euler's (ComfyUI)");
    }
  };
  explicit Lms(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = int(std::min<int64_t>(o_.order, 2))}; }  // it begins with Euler's step

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    std::vector<Tensor> slopes;  // the newest first
    std::vector<double> nodes;
    for (int64_t i = 0; i < steps; ++i) {
      const double sigma = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, sigma, run.condition).x0;
      run.report({i, steps, sigma, x, x0});
      slopes.insert(slopes.begin(), (x - x0) / sigma);
      nodes.insert(nodes.begin(), sigma);
      if (int64_t(nodes.size()) > o_.order) slopes.pop_back(), nodes.pop_back();
      if (to == 0 && o_.euler_at_final) return x0;
      x = x + weighted_sum(adams_weights(nodes, sigma, to), slopes);
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_lms(Registry& r) { r.add<Sampler, Lms>("lms", "linear multistep in sigma"); }

}  // namespace brume::plugins
