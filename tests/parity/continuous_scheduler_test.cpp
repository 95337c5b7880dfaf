// Schedulers of diffusers without a recorded run, against their own algorithms written out: what the import says of a file is
// run, and is what the class computes.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/sin.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "brume/core/noise.h"
#include "brume/interop/import/diffusers_scheduler.h"
#include "support/flow.h"
#include "support/parity.h"

namespace brume::test {
namespace {

using nlohmann::json;

/// As `brume sample` runs the scheduler of a file; the noise is the network's frame's.
class Imported {
 public:
  Imported(const json& values, int64_t steps) {
    const DiffusersScheduler s = read_diffusers_scheduler(DiffusersConfig(values, "scheduler_config.json", "a scheduler of brume"), false);
    config_ = read_scheduler(fmt::format(
        "noise: {}\nparameterization: {}\nsample: {{sampler: {}, spacing: {}, steps: {}, guidance: {}, start: {}}}\n", flow(s.noise),
        flow(s.parameterization), flow(s.sampler), flow(s.spacing), steps, flow(Value::list(s.guidance)), s.start));
    quarter_log_ = flow(s.noise_embedding) == "{input: quarter_log}";
  }
  Tensor run(const Tensor& noise) const {
    const std::vector<double> sigmas = config_.sigmas();
    const auto told = [&](double sigma) { return quarter_log_ ? std::log(sigma) / 4 : config_.noise->timestep(sigma); };
    const auto denoiser = std::make_shared<ScriptedDenoiser>(mix, config_, VarianceOutput::as_brume, told);
    FixedNoise none(0);
    const double start = config_.noise->start_std(sigmas.front()) * config_.signal(sigmas.front());
    return test::run(config_, denoiser, noise * start, sigmas, none).x.back();
  }

 private:
  SchedulerConfig config_;
  bool quarter_log_ = false;
};

Tensor noise() { return (at::arange(96, at::kDouble) * 0.61 + 0.1).sin().view({2, 3, 4, 4}); }

void expect_near(const Tensor& got, const Tensor& wanted, double tolerance) {
  EXPECT_LT((got - wanted).abs().max().item<double>(), tolerance * wanted.abs().max().item<double>());
}

// FlowMatchHeunDiscreteScheduler: the velocity at both ends of a step of s, and Euler's step to the image.
TEST(ContinuousScheduler, FlowMatchHeun) {
  constexpr int64_t steps = 7, times = 500;
  constexpr double shift = 3;
  const auto shifted = [](double s) { return shift * s / (1 + (shift - 1) * s); };
  const double last = shifted(1.0 / times);
  std::vector<double> s;
  for (int64_t i = 0; i < steps; ++i) s.push_back(shifted(1 + double(i) / (steps - 1) * (last - 1)));
  s.push_back(0);
  Tensor x = noise();
  for (size_t i = 0; i < steps; ++i) {
    const double h = s[i + 1] - s[i];
    const Tensor v = mix(x, times * s[i]), y = x + v * h;
    x = i + 1 == steps ? y : x + (v + mix(y, times * s[i + 1])) * (h / 2);
  }
  const Imported imported({{"_class_name", "FlowMatchHeunDiscreteScheduler"}, {"shift", shift}, {"num_train_timesteps", times}}, steps);
  expect_near(imported.run(noise()), x, 1e-5);  // sigma is capped at 1e6
}

// EDMDPMSolverMultistepScheduler: DPM-Solver++ of second order, with the midpoint or Heun's correction, over EDM's levels.
TEST(ContinuousScheduler, EdmDpmSolver) {
  constexpr int64_t steps = 20;  // from 15 on the orders are lowered at the end only because the run ends at 0
  constexpr double sd = 0.7, rho = 5, lo = 0.01, hi = 40;
  std::vector<double> s;
  for (int64_t i = 0; i < steps; ++i)
    s.push_back(std::pow(std::pow(hi, 1 / rho) + double(i) / (steps - 1) * (std::pow(lo, 1 / rho) - std::pow(hi, 1 / rho)), rho));
  s.push_back(0);
  for (const bool heun : {false, true}) {
    Tensor x = noise() * std::sqrt(hi * hi + 1), before;
    for (size_t i = 0; i < steps; ++i) {
      const double norm = s[i] * s[i] + sd * sd, h = std::log(s[i]) - std::log(s[i + 1]), decay = std::expm1(-h);
      const Tensor d = x * (sd * sd / norm) - mix(x / std::sqrt(norm), std::log(s[i]) / 4) * (s[i] * sd / std::sqrt(norm));
      Tensor next = x * (s[i + 1] / s[i]) - d * decay;
      if (i > 0 && i + 1 < steps) {
        const Tensor slope = (d - before) * (h / (std::log(s[i - 1]) - std::log(s[i])));
        next = heun ? next + slope * (decay / h + 1) : next - slope * (decay / 2);
      }
      before = d;
      x = next;
    }
    const Imported imported({{"_class_name", "EDMDPMSolverMultistepScheduler"},
                             {"sigma_data", sd},
                             {"sigma_min", lo},
                             {"sigma_max", hi},
                             {"rho", rho},
                             {"prediction_type", "v_prediction"},
                             {"solver_type", heun ? "heun" : "midpoint"}},
                            steps);
    expect_near(imported.run(noise()), x, 1e-9);
  }
}

}  // namespace
}  // namespace brume::test
