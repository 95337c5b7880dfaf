// Pseudo linear multistep (Liu et al. 2022, PNDM): Adams-Bashforth weights for equal steps, on the noise estimates.
//
//   e = (x - x0) / sigma,  x' = x + (to - sigma) (55 e_i - 59 e_(i-1) + 37 e_(i-2) - 9 e_(i-3)) / 24
//
// The step itself is DDIM's (eq. 11 there). They differ in how they start: pndm by three pseudo Runge-Kutta steps (eq. 13), which
// ask at half of a step of training time too; plms by one of Heun's method, if there is another; ipndm (Zhang & Chen 2023) by lower orders.
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/exponential.h"

namespace brume::plugins {
namespace {

enum class Start { runge_kutta, heun, lower_orders };

template <Start start>
struct PndmOptions {
  int64_t order = 4;
  bool combine_v = false, zero_first = false, euler_at_final = false;
  void declare(Fields& f) {
    f.field("order", order, "noise estimates used", within(1, 4));
    if (start == Start::lower_orders)
      f.field("euler_at_final", euler_at_final, "end with order 1, so that a run to 0 ends at x0 (ComfyUI)");
    if (start == Start::lower_orders)
      f.field("zero_first", zero_first, "take 0 for the first estimate of x0, whatever the network gives (diffusers' IPNDM at pure noise)");
    f.choice("combine", combine_v, "the quantity that the weights combine: the noise, or v (diffusers, for networks that predict v)",
             {{"noise", false}, {"v", true}});
    if (start == Start::lower_orders) f.unused(order == 1, "euler_at_final", "order is 1");
  }
};

template <Start start>
class Pndm final : public Sampler {
 public:
  using Options = PndmOptions<start>;
  explicit Pndm(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = 1}; }  // unequal steps in sigma leave the weights first order only

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    std::vector<Tensor> past;  // what is combined, the newest first
    for (int64_t i = 0; i < steps; ++i) {
      const double sigma = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const auto estimate = [&](const Tensor& y, double s) { return combined(y, denoiser.denoise(y, s, run.condition).x0, s); };
      const auto move = [&](const Tensor& f, double end) { return x + noise_of(f, x, sigma) * (end - sigma); };
      Tensor x0 = denoiser.denoise(x, sigma, run.condition).x0;
      if (i == 0 && o_.zero_first) x0 = at::zeros_like(x0);
      const Tensor f = combined(x, x0, sigma);
      run.report({i, steps, sigma, x, x0});
      past.insert(past.begin(), f);
      if (int64_t(past.size()) > o_.order) past.pop_back();
      if (i == 0 && o_.zero_first) {
        x = x * (to / sigma);  // the step below loses its digits at sigma = 1e6
        continue;
      }
      Tensor mean;
      if (start == Start::runge_kutta && i < 3 && o_.order > 1 && to > 0) {
        const NoiseSchedule& schedule = run.training_times();
        const auto [early, late] = middle(schedule, sigma, to);
        const Tensor f2 = estimate(move(f, early), early), f3 = estimate(move(f2, late), late), f4 = estimate(move(f3, to), to);
        mean = (f + f2 * 2 + f3 * 2 + f4) / 6;
      } else if (start == Start::heun && i == 0 && steps > 1 && o_.order > 1 && to > 0) {
        mean = (f + estimate(move(f, to), to)) * 0.5;
      } else {
        mean = o_.euler_at_final && i + 1 == steps ? f : weighted_sum(weights(past.size()), past);
      }
      x = move(mean, to);
    }
    return x;
  }

 private:
  /// Returns sigma at half of a step's training time, twice. Networks with a table are trained at whole times alone: of an odd number of
  /// times the first is the noisier of the two next to the middle (diffusers).
  static std::pair<double, double> middle(const NoiseSchedule& schedule, double sigma, double to) {
    const double from = schedule.time(sigma), end = schedule.time(to), mid = (from + end) / 2;
    constexpr double slack = 1e-6;  // of the interpolation of a time
    if (schedule.timesteps() == 0 || std::abs(from - end) < 2 - slack) return {schedule.sigma(mid), schedule.sigma(mid)};
    return {schedule.sigma(std::ceil(mid - slack)), schedule.sigma(std::floor(mid + slack))};
  }
  static std::vector<double> weights(size_t count) {
    switch (count) {
      case 1: return {1};
      case 2: return {3.0 / 2, -1.0 / 2};
      case 3: return {23.0 / 12, -16.0 / 12, 5.0 / 12};
      default: return {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24};
    }
  }
  /// Returns (x - x0) / sigma, or v = signal (noise - sigma x0) with the signal rate of a variance-preserving process.
  Tensor combined(const Tensor& y, const Tensor& x0, double s) const {
    const Tensor noise = (y - x0) / s;
    return o_.combine_v ? (noise - x0 * s) / std::sqrt(1 + s * s) : noise;
  }
  Tensor noise_of(const Tensor& f, const Tensor& y, double s) const {
    return o_.combine_v ? f / std::sqrt(1 + s * s) + y * (s / (1 + s * s)) : f;
  }
  Options o_;
};

}  // namespace

void register_sampler_pndm(Registry& r) {
  r.add<Sampler, Pndm<Start::runge_kutta>>("pndm", "pseudo linear multistep, started by Runge-Kutta steps");
  r.add<Sampler, Pndm<Start::heun>>("plms", "pseudo linear multistep, started by a step of Heun's (Stable Diffusion)");
  r.add<Sampler, Pndm<Start::lower_orders>>("ipndm", "pseudo linear multistep, started by lower orders");
}

}  // namespace brume::plugins
