// The simplified objective (Ho et al. 2020, eq. 14; Salimans & Ho 2022 for v and x0): draw t evenly, add noise, and measure
// the error of the noise, of the image or of v, whatever the network itself predicts.
//
//   x = x0 + sigma n,   F* = ((1 - c_skip) x0 - c_skip sigma n) / c_out,   loss = mean w(sigma) rho(k (F - F*))
//
// where k turns an error of F into one of the target: an error of F is one of x0 times c_out.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/huber_loss.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "config/registry.h"
#include "core/objective.h"

namespace brume::plugins {
namespace {

enum class Penalty { mse, mae, huber };

/// An error of x0 times this is an error of the target.
double target_scale(Target target, double sigma) {
  switch (target) {
    case Target::noise: return -1 / sigma;
    case Target::image: return 1;
    case Target::v: return -std::sqrt(1 + sigma * sigma) / sigma;
  }
  return 1;
}

class Simple final : public Objective {
 public:
  struct Options {
    Penalty loss = Penalty::mse;
    Target target = Target::noise;
    double delta = 1;
    std::shared_ptr<const Weighting> weighting;
    void declare(Fields& f) {
      f.choice("loss", loss, "of the error", {{"mse", Penalty::mse}, {"mae", Penalty::mae}, {"huber", Penalty::huber}});
      f.choice("target", target, "whose error is measured", {{"noise", Target::noise}, {"image", Target::image}, {"v", Target::v}});
      f.field("delta", delta, "where the huber loss turns from square to linear", more_than(0));
      f.field("weighting", weighting, "how much each noise level counts", "none");
    }
  };
  explicit Simple(const Options& o) : o_(o) {}

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, at::Generator& random) const override {
    const std::vector<double> sigmas = draw(model.schedule(), x0.size(0), random);
    const Tensor noise = at::randn(x0.sizes(), random, at::TensorOptions().dtype(x0.scalar_type())).to(x0.device());
    const Parameterization& p = model.parameterization();
    // One coefficient an image, [B, 1, 1, 1].
    const auto each = [&](const auto& f) {
      std::vector<float> values;
      for (const double s : sigmas) values.push_back(float(f(s)));
      std::vector<int64_t> shape(size_t(x0.dim()), 1);
      shape[0] = x0.size(0);
      return at::tensor(values).view(shape).to(x0.device());
    };
    const Tensor x = x0 + noise * each([](double s) { return s; });
    const Tensor wanted = x0 * each([&](double s) { return (1 - p.c_skip(s)) / p.c_out(s); }) -
                          noise * each([&](double s) { return p.c_skip(s) * s / p.c_out(s); });
    const Tensor error =
        (model.network(x, sigmas, condition) - wanted) * each([&](double s) { return p.c_out(s) * target_scale(o_.target, s); });
    return (penalty(error) * each([&](double s) { return o_.weighting->weight(s, o_.target); })).mean();
  }

 private:
  static std::vector<double> draw(const NoiseSchedule& schedule, int64_t count, at::Generator& random) {
    const auto options = at::TensorOptions().dtype(at::kDouble);
    const Tensor t = schedule.timesteps() > 0
                         ? at::randint(schedule.timesteps(), {count}, random, options)
                         : at::rand({count}, random, options) * (schedule.t_max() - schedule.t_min()) + schedule.t_min();
    std::vector<double> sigmas;
    for (int64_t i = 0; i < count; ++i) sigmas.push_back(schedule.sigma(t.data_ptr<double>()[i]));
    return sigmas;
  }
  Tensor penalty(const Tensor& e) const {
    if (o_.loss == Penalty::mse) return e * e;
    if (o_.loss == Penalty::mae) return e.abs();
    return at::huber_loss(e, at::zeros_like(e), at::Reduction::None, o_.delta);
  }
  Options o_;
};

}  // namespace

void register_objective_simple(Registry& r) { r.add<Objective, Simple>("simple", "evenly drawn t, weighted error of noise, image or v"); }

}  // namespace brume::plugins
