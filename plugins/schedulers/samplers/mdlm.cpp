// Unmasking of codes. `random` is masked diffusion (Sahoo et al. 2024, MDLM, eq. 7): a masked code is revealed with probability
//
//   (alpha_s - alpha_t) / (1 - alpha_t),   drawn from p(x0) = softmax(D);   what is revealed stays
//
// `confidence` is MaskGIT (Chang et al. 2022, sec. 3.2): all masked codes are drawn, and of N positions the floor(N (1 - alpha_s)) with the
// least log p + temperature (1 - share of the steps done) Gumbel noise stay masked.
#include <ATen/TensorOperators.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/where.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/code_chain.h"

namespace brume::plugins {
namespace {

enum class Order { random, confidence };

class Mdlm final : public Sampler, public OfCodes {
 public:
  struct Options {
    Order order = Order::random;
    double temperature = 4.5;
    void declare(Fields& f) {
      f.choice("order", order, "which codes are revealed first: any, or those that the model is sure of (MaskGIT)",
               {{"random", Order::random}, {"confidence", Order::confidence}});
      f.field("temperature", temperature, "of the noise on the confidence, falling to 0 with the steps", at_least(0));
      f.unused(order == Order::random, "temperature", "order is random");
    }
  };
  explicit Mdlm(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {}; }
  std::optional<CodeKernel> kernel() const override { return CodeKernel::absorbing; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const NoiseSchedule& schedule = run.training_times();
    expect_chain_steps(schedule, sigmas);
    const int64_t steps = int64_t(sigmas.size()) - 1;
    x = first_codes(CodeKernel::absorbing, x, sigmas.front(), run);
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor logits = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, logits});
      const Tensor p = estimated_codes(logits, run.condition), u = uniform_per_code(x, from, to, run), hidden = masked(x) > 0;
      const CodeStep step = run_step(schedule, sigmas, i);
      const double share = revealed(step);
      const bool sure = o_.order == Order::confidence;
      const Tensor codes = drawn(p, sure ? u : (u / share).clamp_max(1 - 1e-12));
      const Tensor shown =
          sure ? surest(p, codes, hidden, step.to, o_.temperature * (1 - double(i + 1) / double(steps)), x, from, run) : u < share;
      x = at::where(hidden.logical_and(shown), one_hot(codes, x.size(1), x.scalar_type()), x);
    }
    return x;
  }

 private:
  /// Returns which of the hidden codes are revealed, [B, 1, H, W].
  static Tensor surest(const Tensor& p, const Tensor& codes, const Tensor& hidden, double alpha, double temperature, const Tensor& x,
                       double sigma, Run& run) {
    Tensor confidence = p.gather(1, codes.unsqueeze(1)).log();
    if (temperature > 0) confidence = confidence - (-uniform_per_code(x, sigma, sigma, run).clamp_min(1e-12).log()).log() * temperature;
    const Tensor of_hidden = confidence.masked_fill(hidden.logical_not(), INFINITY).flatten(1);  // what is shown stays shown
    const Tensor rank = std::get<1>(of_hidden.sort(/*stable=*/true, 1, /*descending=*/false)).argsort(int64_t(1), false);
    const auto stay = int64_t(std::floor(double(rank.size(1)) * (1 - alpha)));
    return (rank >= stay).view_as(hidden);
  }

  Options o_;
};

}  // namespace

void register_sampler_mdlm(Registry& r) {
  r.add<Sampler, Mdlm>("mdlm", "unmasking of codes, in random order or the surest first (models with logits)");
}

}  // namespace brume::plugins
