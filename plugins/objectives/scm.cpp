// Continuous-time consistency models (Lu & Song 2025, "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models", alg. 1),
// in training (no teacher) or distillation (teacher).
//
//   TrigFlow: x_t = cos t x0 + sin t z, z ~ N(0, sd^2),  D = cos t x_t - sd sin t F(x_t / sd, t);   sigma = sd tan t
//   dx/dt = cos t z - sin t x0, or sd F_teacher
//   g = -cos^2 t (sd F - dx/dt) - r (cos t sin t x_t + sd cos t sin t dF/dt),   r = min(1, step / warmup),   g <- g / (|g| / sqrt(dim) + c)
//   loss = e^-u |F - stop-gradient(F + g)|^2 / dim + u,   u: the network's log variance, if it learns one
//
// {type: edm, prediction: v} is TrigFlow's parameterization. dF/dt is a central difference along the path, as in mean_flow: float32, and a
// network that is smooth in t. Sample with `consistency`.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/distillation.h"
#include "brume/numerics/noising.h"
#include "brume/numerics/teacher.h"

namespace brume::plugins {
namespace {

class Scm final : public Objective {
 public:
  struct Options {
    GuidedTeacher teacher;
    double sigma_data = 0.5;
    int64_t warmup = 10000;
    Tangent tangent;
    double mean = -1, std = 1.4;
    void declare(Fields& f) {
      teacher.declare(f, "model.safetensors of a trained model, for distillation; empty = consistency training");
      f.field("sigma_data", sigma_data, "standard deviation of the images", more_than(0));
      f.field("warmup", warmup, "steps until the second term of the tangent counts in full", at_least(1));
      f.field("normalize", tangent.normalized, "divide the tangent by its norm");
      f.field("c", tangent.c, "keeps that division finite", more_than(0));
      f.field("step", tangent.step, "of the difference quotient, in t", within(1e-6, 0.1));
      f.field("mean", mean, "mean of log sigma (P_mean)");
      f.field("std", std, "standard deviation of log sigma (P_std)", more_than(0));
    }
  };
  explicit Scm(const Options& o) : o_(o) {}
  bool denoises() const override { return false; }

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const double sd = o_.sigma_data;
    const NoisyBatch b = add_noise(x0, log_normal_levels(model.schedule(), x0.size(0), o_.mean, o_.std, random), random);
    TrigFlow trig{{}, {}, {}, sd};
    for (const double s : b.sigmas) trig.t.push_back(std::atan(s / sd));
    const auto each = [&](const auto& f) { return each_image(trig.t, x0, f); };
    trig.x = b.x * each([](double t) { return std::cos(t); });
    trig.slope = b.noise * each([&](double t) { return sd * std::cos(t); }) - x0 * each([](double t) { return std::sin(t); });
    if (!o_.teacher.file.empty()) {
      const Tensor taught = estimates(*o_.teacher.open(training, x0), b.x, b.sigmas, condition);
      trig.slope = (trig.x * each([](double t) { return std::cos(t); }) - taught) * each([](double t) { return 1 / std::sin(t); });
    }
    const Tensor before_dropout = random.get_state();
    Tensor log_variance;
    const TrigNetwork network = [&](const Tensor& x, const std::vector<double>& t) {
      random.set_state(before_dropout);
      return prediction(model, x, t, condition, log_variance);
    };
    const Tensor online = network(trig.x, trig.t), u = log_variance;
    Tangent tangent = o_.tangent;
    tangent.warmup = std::min(1.0, double(training.step) / double(o_.warmup));
    const Tensor g = consistency_tangent(network, trig, online, tangent, times(model.schedule()));
    const Tensor squares = (online - (online.detach() + g)).square().flatten(1).mean(1);
    return (u.defined() ? squares * (-u).exp() + u : squares).mean();
  }

 private:
  TimeRange times(const NoiseSchedule& schedule) const {
    return {std::atan(schedule.sigma(schedule.t_min()) / o_.sigma_data), std::atan(schedule.sigma(schedule.t_max()) / o_.sigma_data)};
  }
  /// Returns TrigFlow's F of a model of any parameterization: (cos t x_t - D) / (sd sin t).
  Tensor prediction(const TrainableModel& model, const Tensor& x, const std::vector<double>& t, const Condition& condition,
                    Tensor& log_variance) const {
    const double sd = o_.sigma_data;
    const Parameterization& p = model.parameterization();
    std::vector<double> sigmas;
    sigmas.reserve(t.size());
    for (const double time : t) sigmas.push_back(within_schedule(model.schedule(), sd * std::tan(time)));
    const auto each = [&](const auto& f) { return each_image(sigmas, x, f); };
    const TrainableModel::Prediction made = model.predict(x * each([&](double s) { return std::hypot(s, sd) / sd; }), sigmas, condition);
    log_variance = made.log_variance;
    // x_t = x cos t, cos t = sd / hypot(s, sd), sd sin t = s sd / hypot(s, sd)
    const Tensor skipped =
        x * each([&](double s) { return (sd / std::hypot(s, sd) - p.c_skip(s) * std::hypot(s, sd) / sd) * std::hypot(s, sd) / (s * sd); });
    return skipped - made.f * each([&](double s) { return p.c_out(s) * std::hypot(s, sd) / (s * sd); });
  }
  Options o_;
};

}  // namespace

void register_objective_scm(Registry& r) {
  r.add<Objective, Scm>("scm", "continuous-time consistency models (sCM), with or without a teacher");
}

}  // namespace brume::plugins
