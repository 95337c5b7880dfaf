// Ancestral sampling of codes (Austin et al. 2021, D3PM, eq. 4), at any stride of the chain: x_s is drawn position by position.
//
//   x_s ~ p(x_s | x_t) = sum_x0 q(x_s, x_t | x0) p(x0) / Z,   p(x0) = softmax(D)
//
// The kernel is that of the model's parameterization; with `absorbing`, what is unmasked stays. The last step ends at x0.
#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/code_chain.h"

namespace brume::plugins {
namespace {

class D3pm final : public Sampler, public OfCodes {
 public:
  struct Options {
    CodeKernel kernel = CodeKernel::absorbing;
    void declare(Fields& f) {
      f.choice("kernel", kernel, "the kernel of model.parameterization",
               {{"absorbing", CodeKernel::absorbing}, {"uniform", CodeKernel::uniform}});
    }
  };
  explicit D3pm(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {}; }
  std::optional<CodeKernel> kernel() const override { return o_.kernel; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const NoiseSchedule& schedule = run.training_times();
    expect_chain_steps(schedule, sigmas);
    const int64_t steps = int64_t(sigmas.size()) - 1, codes = x.size(1);
    x = first_codes(o_.kernel, x, sigmas.front(), run);
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor logits = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, logits});
      const std::vector<CodeStep> step(size_t(x.size(0)), run_step(schedule, sigmas, i));
      const Tensor weights = posterior(o_.kernel, x, estimated_codes(logits, run.condition), step);
      x = one_hot(drawn(weights, uniform_per_code(x, from, to, run)), weights.size(1), x.scalar_type()).narrow(1, 0, codes);
    }
    return x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_d3pm(Registry& r) {
  r.add<Sampler, D3pm>("d3pm", "ancestral steps of codes, with uniform or absorbing noise (models with logits)");
}

}  // namespace brume::plugins
