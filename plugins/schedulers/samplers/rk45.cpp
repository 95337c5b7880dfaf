// The probability-flow ODE by Dormand and Prince's pair of orders 5 and 4 with an adaptive step (Song et al. 2021b, sec. 4.3 and
// app. D.4), in u = log sigma, where the paths are smooth:
//
//   dx / du = x - x0(x, e^u)
//
// From the first sigma to the last that is not 0; if the run ends at 0, one more call gives the image. Each image walks at its own
// pace, one at a time, unless `shared_steps` ties a batch together.
#include <ATen/TensorOperators.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/rk45.h"
#include "brume/numerics/step_size.h"

namespace brume::plugins {
namespace {

class Rk45 final : public Sampler {
 public:
  struct Options {
    Rk45Options solver;
    bool shared_steps = false;
    void declare(Fields& f) {
      f.field("rtol", solver.rtol, "relative tolerance", more_than(0));
      f.field("atol", solver.atol, "absolute tolerance", more_than(0));
      f.field("shared_steps", shared_steps, "one step length for the whole batch: faster, and an image then depends on its batch");
    }
  };
  explicit Rk45(const Options& o) : o_(o) {}
  SamplerTraits traits() const override { return {.order = 5, .own_steps = true, .own_count = true}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const bool to_zero = sigmas.back() == 0;
    const double last = to_zero ? sigmas[sigmas.size() - 2] : sigmas.back();
    return image_by_image(x, o_.shared_steps, run, [&](const Tensor& image, Run& one) {
      Tensor x0;
      const auto slope = [&](double u, const Tensor& y) {
        x0 = denoiser.denoise(y, std::exp(u), one.condition).x0;
        return y - x0;
      };
      int64_t step = 0;
      const auto accepted = [&](double u, const Tensor& y) { one.report({step++, 0, std::exp(u), y, x0}); };
      const Tensor end = rk45(slope, image, std::log(sigmas.front()), std::log(last), o_.solver, accepted).x;
      return to_zero ? denoiser.denoise(end, last, one.condition).x0 : end;
    });
  }

 private:
  Options o_;
};

}  // namespace

void register_sampler_rk45(Registry& r) { r.add<Sampler, Rk45>("rk45", "probability-flow ODE by Dormand-Prince, adaptive"); }

}  // namespace brume::plugins
