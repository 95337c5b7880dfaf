// STORK-2 (Tan et al. 2025, "STORK: Improving the fidelity of mid-NFE sampling for diffusion and flow matching models", alg. 1): the
// stabilised Runge-Kutta-Gegenbauer method of order 2 (Skaras et al. 2021), its inner stages on a Taylor expansion of the slope.
//
//   Y_j = mu_j Y_(j-1) + nu_j Y_(j-2) + (1 - mu_j - nu_j) y + mu~_j h v(t_j) + gamma~_j h v_0,   j = 2 ... substeps
//   v(t) = v_0 + (t - t_0) v' + (t - t_0)^2 v'' / 2 + ...,   v', v'': differences of the last slopes
//
// y and t are those of the frame, flow matching's by default. The first step has a slope in its middle too, the next ones are of Adams and
// Bashforth.
#include <ATen/TensorOperators.h>

#include <array>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/ode_frame.h"

namespace brume::plugins {
namespace {

class Stork final : public Sampler {
 public:
  struct Options {
    int64_t substeps = 50, derivatives = 1;
    bool published = false;
    Frame frame{Frame::Time::flow, Frame::Scale::flow};
    void declare(Fields& f) {
      f.field("substeps", substeps, "inner stages per step, without network calls", within(2, 1000));
      f.field("derivatives", derivatives, "derivatives in the Taylor expansion of the slope", within(1, 3));
      f.choice("nodes", published, "times of the inner stages: the method's, or the authors' program's, which leave it order 1",
               {{"method", false}, {"published", true}});
      frame.declare(f);
    }
  };
  explicit Stork(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = o_.published || o_.derivatives == 3 ? 1 : 2}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const int64_t steps = int64_t(sigmas.size()) - 1;
    std::vector<Tensor> slopes;   // the newest first
    std::vector<double> lengths;  // of the steps, the one to come first
    for (int64_t i = 0; i < steps; ++i) {
      const double sigma = sigmas[size_t(i)], to = sigmas[size_t(i) + 1];
      const Tensor x0 = denoiser.denoise(x, sigma, run.condition).x0;
      run.report({i, steps, sigma, x, x0});
      if (to == sigma) continue;
      const Frame::Point here = o_.frame.at(sigma, run.schedule), there = o_.frame.at(to, run.schedule);
      slopes.insert(slopes.begin(), here.slope(x, x0));
      lengths.insert(lengths.begin(), there.u - here.u);
      if (slopes.size() > 4) slopes.pop_back(), lengths.pop_back();
      const Tensor y = x * here.scale;
      const Tensor step =
          i == 0 ? first_step(denoiser, y, slopes[0], here.u, lengths[0], run) : moved(slopes, lengths, size_t(o_.derivatives));
      x = (y + step) / there.scale;
    }
    return x;
  }

 private:
  /// Returns the first step of length h from u: by the slopes at its beginning and in its middle, a quarter and three quarters.
  Tensor first_step(const Denoiser& denoiser, const Tensor& y, const Tensor& slope, double u, double h, Run& run) const {
    const Frame::Point middle = o_.frame.at(o_.frame.sigma(u + h / 2, run.schedule), run.schedule);
    const Tensor x = (y + slope * (h / 2)) / middle.scale;
    return (slope * 0.25 + middle.slope(x, denoiser.denoise(x, middle.sigma, run.condition).x0) * 0.75) * h;
  }

  Tensor moved(const std::vector<Tensor>& v, const std::vector<double>& h, size_t order) const {
    if (v.size() <= order) return v[0] * (h[0] + h[0] * h[0] / (2 * h[1])) - v[1] * (h[0] * h[0] / (2 * h[1]));
    const std::vector<Tensor> derivatives = differences(v, h, order);
    const std::array<double, 4> weights = gegenbauer(h[0]);
    Tensor sum = v[0] * weights[0];
    for (size_t k = 1; k <= order; ++k) sum = sum + derivatives[k - 1] * weights[k];
    return sum;
  }

  /// Returns the derivatives of the slope, as published: with two, the first is that of equal steps; with three, they leave the method
  /// order 1.
  static std::vector<Tensor> differences(const std::vector<Tensor>& v, const std::vector<double>& h, size_t order) {
    if (order == 1) return {(v[0] - v[1]) / h[1]};
    const double a = -h[1], b = -h[2];
    if (order == 2) return {(v[1] * 4 - v[2] - v[0] * 3) / (2 * a), (v[2] * a - v[1] * (a + b) + v[0] * b) * (2 / (a * b * (a + b)))};
    const double c = b, d = -h[3], all = a * c * d;
    const Tensor one = v[1] - v[0], two = v[2] - v[0], three = v[3] - v[0];
    return {(one * (c * d) - two * (a * d) + three * (a * c)) / all, (one * (c + d) - two * (a + d) + three * (a + c)) * (2 / all),
            (one * (c - d) + two * (d - a) + three * (a - c)) * (6 / all)};
  }

  static double coefficient(int64_t j) {  // b_j of the method
    const double n = double(j);
    return j == 0 ? 1 : j == 1 ? 1.0 / 3 : 4 * (n - 1) * (n + 4) / (3 * n * (n + 1) * (n + 2) * (n + 3));
  }
  /// Returns the weights of v_0 and of its derivatives in a step of length h.
  std::array<double, 4> gegenbauer(double h) const {
    const double s = double(o_.substeps), whole = 6 / ((s + 4) * (s - 1));
    std::array<double, 4> older{}, old{h * whole, 0, 0, 0};
    for (int64_t j = 2; j <= o_.substeps; ++j) {
      const double n = double(j), mu = (2 * n + 1) * coefficient(j) / (n * coefficient(j - 1));
      const double nu = -(n + 1) * coefficient(j) / (n * coefficient(j - 2)), step = h * mu * whole;
      const double place = j == 2 ? 4 / (3 * (s * s + s - 2)) : ((n - 1) * n - 2) / (s * s + s - 2);
      const double share = o_.published ? place : old[0] / h;  // the weight of v_0 alone is the time of a stage
      std::array<double, 4> now{};
      double power = 1;
      for (size_t k = 0; k < 4; ++k) {
        now[k] = mu * old[k] + nu * older[k] + step * power;
        power *= share * h / double(k + 1);
      }
      now[0] -= step * (1 - n * (n + 1) * coefficient(j - 1) / 2);
      older = old, old = now;
    }
    return old;
  }
  Options o_;
};

}  // namespace

void register_sampler_stork(Registry& r) { r.add<Sampler, Stork>("stork_2", "STORK-2: stabilised Runge-Kutta on an expanded slope"); }

}  // namespace brume::plugins
