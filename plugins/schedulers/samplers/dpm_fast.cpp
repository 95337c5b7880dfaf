// DPM-Solver-fast (Lu et al. 2022a, app. D.3; k-diffusion): as many network calls as there are steps, spent on single steps of
// order 3 over a grid of its own, even in lambda = -log sigma from the first sigma to the last that is not 0.
//
// If the run ends at sigma = 0, the last call gives the image: x' = x0. k-diffusion itself ends at the last sigma that is not 0.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/dpm_solver.h"
#include "brume/numerics/stochastic.h"

namespace brume::plugins {
namespace {

class DpmFast final : public Sampler {
 public:
  struct Options {
    double eta = 0, s_noise = 1;
    bool last_call = true;
    void declare(Fields& f) {
      f.field("eta", eta, "share of the ancestral noise; 0 = deterministic", within(0, 1));
      f.field("s_noise", s_noise, "standard deviation of that noise", more_than(0));
      f.unused(eta == 0, "s_noise", "eta is 0");
      f.field("last_call", last_call,
              "a run to sigma = 0 ends with a call that gives the image; false: at the last sigma above 0 (k-diffusion)");
    }
  };
  explicit DpmFast(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.eta > 0 ? 0 : 1, .own_steps = true}; }  // it ends with a step of order 1 or 2

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t calls = int64_t(sigmas.size()) - 1;
    const bool zero = sigmas.back() == 0, to_zero = zero && o_.last_call;
    const double first = std::log(sigmas.front()), last = std::log(zero ? sigmas[sigmas.size() - 2] : sigmas.back());
    const std::vector<int64_t> orders = calls > int64_t(to_zero) ? dpm_fast_orders(calls - to_zero) : std::vector<int64_t>{};
    int64_t call = 0;
    const auto x0_at = [&](const Tensor& y, double s) {
      const Tensor x0 = denoiser.denoise(y, s, run.condition).x0;
      run.report({call++, calls, s, y, x0});
      return x0;
    };
    const auto eps = [&](const Tensor& y, double s) { return (y - x0_at(y, s)) / s; };
    for (size_t i = 0; i < orders.size(); ++i) {
      const auto grid = [&](size_t k) { return std::exp(first + (last - first) * double(k) / double(orders.size())); };
      const double from = grid(i), to = grid(i + 1);
      const double down = std::max(ancestral_step(from, to, o_.eta).down, std::exp(std::min(first, last)));
      DpmStep step(eps, x, eps(x, from), from, down);
      x = orders[i] == 1 ? step.first() : orders[i] == 2 ? step.second(0.5) : step.third(1.0 / 3, 2.0 / 3);
      if (o_.eta > 0 && down < to) x = x + run.noise.draw(x, from, to) * (o_.s_noise * std::sqrt((to - down) * (to + down)));
    }
    return to_zero ? x0_at(x, std::exp(last)) : x;
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_dpm_fast(Registry& r) { r.add<Sampler, DpmFast>("dpm_fast", "DPM-Solver-fast: order 3 on a grid of its own"); }

}  // namespace brume::plugins
