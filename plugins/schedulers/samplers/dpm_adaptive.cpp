// The adaptive DPM-Solver (Lu et al. 2022a, app. C; k-diffusion): steps in lambda = -log sigma of orders 2 and 3 (or 1 and 2) from
// the same network calls; their difference sets the next step's length by a PID controller (Hairer & Wanner II, sec. IV.2).
//
//   error = | (x_low - x_high) / max(atol, rtol max(|x_low|, |x_last|)) | / sqrt(numbers)
//
// Each image walks at its own pace, one at a time, unless `shared_steps` (as k-diffusion has it, and faster) ties a batch together.
#include <ATen/TensorOperators.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/norm.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/dpm_solver.h"
#include "brume/numerics/step_size.h"
#include "brume/numerics/stochastic.h"

namespace brume::plugins {
namespace {

class DpmAdaptive final : public Sampler {
 public:
  struct Options {
    int64_t order = 3;
    double rtol = 0.05, atol = 0.0078, h_init = 0.05, eta = 0, s_noise = 1;
    PidOptions pid;
    bool shared_steps = false, last_call = true;
    void declare(Fields& f) {
      f.field("order", order, "order of the better of the two solutions", within(2, 3));
      f.field("rtol", rtol, "relative tolerance", more_than(0));
      f.field("atol", atol, "absolute tolerance", more_than(0));
      f.field("h_init", h_init, "first step in log sigma", more_than(0));
      f.field("eta", eta, "share of the ancestral noise; 0 = deterministic", within(0, 1));
      f.field("s_noise", s_noise, "standard deviation of that noise", more_than(0));
      f.unused(eta == 0, "s_noise", "eta is 0");
      pid.declare(f);
      f.field("shared_steps", shared_steps, "one step length for the whole batch: faster, and an image then depends on its batch");
      f.field("last_call", last_call,
              "a run to sigma = 0 ends with a call that gives the image; false: at the last sigma above 0 (k-diffusion)");
      f.require(eta == 0 || shared_steps, "eta", "above 0 needs shared_steps: true");
    }
  };
  explicit DpmAdaptive(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.eta > 0 ? 0 : int(o_.order), .own_steps = true, .own_count = true}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const bool zero = sigmas.back() == 0, to_zero = zero && o_.last_call;
    const double last = zero ? sigmas[sigmas.size() - 2] : sigmas.back();
    return image_by_image(x, o_.shared_steps, run,
                          [&](const Tensor& image, Run& one) { return solve(denoiser, image, sigmas.front(), last, to_zero, one); });
  }

 private:
  Tensor solve(const Denoiser& denoiser, Tensor x, double first, double last, bool to_zero, Run& run) const {
    const auto x0_at = [&](const Tensor& y, double s) { return denoiser.denoise(y, s, run.condition).x0; };
    const auto eps = [&](const Tensor& y, double s) { return (y - x0_at(y, s)) / s; };
    PidController pid(o_.pid, o_.eta > 0 ? 1.5 : double(o_.order), std::abs(o_.h_init));
    const double way = std::log(first / last), sign = way < 0 ? -1 : 1, end = std::abs(way);
    double s = 0;  // how far in lambda
    Tensor x_last = x;
    Tensor x0;  // kept while steps are refused
    for (int64_t i = 0; s < end - 1e-5;) {
      const double to_s = std::min(end, s + pid.step()), from = first * std::exp(-sign * s), to = first * std::exp(-sign * to_s);
      const double floor = first * std::exp(-sign * end);
      const double down = o_.eta > 0 ? std::max(ancestral_step(from, to, o_.eta).down, floor) : to;
      if (!x0.defined()) {
        x0 = x0_at(x, from);
        run.report({i++, 0, from, x, x0});
      }
      DpmStep step(eps, x, (x - x0) / from, from, down);
      const Tensor low = o_.order == 2 ? step.first() : step.second(1.0 / 3);
      const Tensor high = o_.order == 2 ? step.second(0.5) : step.third(1.0 / 3, 2.0 / 3);
      const Tensor allowed = at::maximum(low.abs(), x_last.abs()).mul(o_.rtol).clamp_min(o_.atol);
      const double error = ((low - high) / allowed).norm().item<double>() / std::sqrt(double(x.numel()));
      if (!pid.accepts(error)) continue;
      x_last = low;
      x = high;
      if (down < to) x = x + run.noise.draw(x, from, to) * (o_.s_noise * std::sqrt((to - down) * (to + down)));
      s = to_s;
      x0 = Tensor();
    }
    return to_zero ? x0_at(x, last) : x;
  }
  Options o_;
};

}  // namespace

void register_sampler_dpm_adaptive(Registry& r) {
  r.add<Sampler, DpmAdaptive>("dpm_adaptive", "DPM-Solver with an adaptive step, orders 2 and 3");
}

}  // namespace brume::plugins
