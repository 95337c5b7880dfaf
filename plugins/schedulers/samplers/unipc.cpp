// UniPC (Zhao et al. 2023): a predictor in lambda = -log sigma, and a corrector of the same step that uses the next network call,
// which has to be made anyhow.
//
//   x' = e^hh x - (e^hh - 1) F_i - B sum_k rho_k (F_(i-k) - F_i) / r_k,  r_k = (lambda_(i-k) - lambda_i) / h,  hh = -h
//   sum_k rho_k r_k^(m-1) = m! g_m / B,  g_1 = (e^hh - 1) / hh - 1,  g_(m+1) = g_m / hh - 1 / (m + 1)!          (eq. 11 there)
//   B = hh ("bh1") or e^hh - 1 ("bh2")
//
// F is the estimate of x0; with noise prediction hh = h, x keeps the factor 1 and the rest is times the sigma at the end. In the
// corrector F at the end of the step is one more difference, with r = 1.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/multistep.h"

namespace brume::plugins {
namespace {

class UniPc final : public Sampler {
 public:
  struct Options {
    int64_t order = 2;
    bool bh1 = false, lower_order_final = true;
    Prediction prediction = Prediction::data;
    std::vector<int64_t> disable_corrector = {};
    void declare(Fields& f) {
      f.field("order", order, "predictions used by the predictor", within(1, 4));
      f.choice("solver", bh1, "B(h): the step itself, or e^h - 1", {{"bh2", false}, {"bh1", true}});
      f.choice("prediction", prediction, "the quantity that is extrapolated", {{"data", Prediction::data}, {"noise", Prediction::noise}});
      f.field("lower_order_final", lower_order_final, "end with orders 2 and 1");
      f.field("disable_corrector", disable_corrector, "steps (from 0) that are not corrected");
      f.unused(order == 1, "lower_order_final", "order is 1");
    }
  };
  explicit UniPc(const Options& o) : o_(o) {}
  /// Adds one to the predictor's order for the corrector; the first step, of order 1, and the last, which is not corrected, limit the run.
  SamplerTraits traits() const override {
    if (!o_.disable_corrector.empty()) return {.order = int(std::min<int64_t>(o_.order, 2))};
    return {.order = o_.lower_order_final || o_.order == 1 ? 2 : 3};
  }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    PredictionHistory past(o_.prediction, o_.order);
    Tensor last;             // x before the step that led here
    int64_t last_order = 0;  // of that step
    for (int64_t i = 0; i < steps; ++i) {
      const double from = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, from, run.condition).x0;
      run.report({i, steps, from, x, x0});
      const Tensor f = predicted(o_.prediction, x, x0, from);
      if (i > 0 && corrects(i - 1)) x = step(past, last, sigmas[size_t(i) - 1], from, last_order, f);
      past.add_value(f, from);
      if (to == 0) return x0;
      const int64_t longest = o_.lower_order_final ? std::min(o_.order, steps - i) : o_.order;
      last = x;
      last_order = std::min(longest, i + 1);
      x = step(past, last, from, to, last_order, {});
    }
    return x;
  }

 private:
  bool corrects(int64_t step) const {
    return std::find(o_.disable_corrector.begin(), o_.disable_corrector.end(), step) == o_.disable_corrector.end();
  }

  /// Steps from `from` to `to`, by the predictions up to `from` and, in the corrector, `ahead`, the one at `to`.
  Tensor step(const PredictionHistory& past, const Tensor& x, double from, double to, int64_t order, const Tensor& ahead) const {
    if (from == to) return x;
    const bool data = o_.prediction == Prediction::data;
    const double h = std::log(from / to), hh = data ? -h : h;
    std::vector<double> ratios;
    std::vector<Tensor> differences;
    for (size_t k = 1; k < size_t(order); ++k) {
      ratios.push_back((past.lambdas()[k] - past.lambdas()[0]) / h);
      differences.push_back((past.values()[k] - past.newest()) / ratios.back());
    }
    if (ahead.defined()) {
      ratios.push_back(1);
      differences.push_back(ahead - past.newest());
    }
    const double growth = std::expm1(hh), b = o_.bh1 ? hh : growth, size = data ? 1 : to;
    Tensor next = (data ? x * (to / from) : x) - past.newest() * (size * growth);
    if (!ratios.empty()) next = next - weighted_sum(weights(ratios, hh, b), differences) * (size * b);
    return next;
  }

  /// Returns the rho of eq. 11; 1/2 for a single one, as in its authors' program.
  static std::vector<double> weights(const std::vector<double>& ratios, double hh, double b) {
    if (ratios.size() == 1) return {0.5};
    std::vector<std::vector<double>> matrix;
    std::vector<double> right;
    double phi = std::expm1(hh) / hh - 1, factorial = 1;
    for (size_t m = 1; m <= ratios.size(); ++m) {
      std::vector<double> row;
      for (const double r : ratios) row.push_back(std::pow(r, double(m - 1)));
      matrix.push_back(row);
      right.push_back(phi * factorial / b);
      factorial *= double(m + 1);
      phi = phi / hh - 1 / factorial;
    }
    return solve(matrix, right);
  }
  Options o_;
};

}  // namespace

void register_sampler_unipc(Registry& r) { r.add<Sampler, UniPc>("unipc", "UniPC: predictor and corrector in log sigma"); }

}  // namespace brume::plugins
