#include "brume/conform/exact_models.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "brume/numerics/discrete_schedule.h"

namespace brume {
namespace {

struct CosineTimes {
  BetaTable table() const {
    return BetaTable(betas_of([](double u) { return std::pow(std::cos((u + 0.008) / 1.008 * M_PI / 2), 2); }, 1000, 0.999));
  }
};

class ExtremeSigmas final : public NoiseSchedule {
 public:
  double sigma(double t) const override { return std::pow(10, -4 + 10 * t); }
  double time(double sigma) const override { return std::clamp((std::log10(sigma) + 4) / 10, 0.0, 1.0); }
  double t_min() const override { return 0; }
  double t_max() const override { return 1; }
};

class VPrediction final : public Parameterization {
 public:
  double c_skip(double sigma) const override { return 1 / (1 + sigma * sigma); }
  double c_out(double sigma) const override { return -sigma / std::hypot(1, sigma); }
};

class BoundaryPrediction final : public Parameterization {
 public:
  explicit BoundaryPrediction(double least) : least_(least) {}
  double c_skip(double sigma) const override { return 0.25 / ((sigma - least_) * (sigma - least_) + 0.25); }
  double c_out(double sigma) const override { return 0.5 * (sigma - least_) / std::hypot(sigma, 0.5); }

 private:
  double least_;
};

template <class F>
Tensor each(const std::vector<double>& sigmas, const F& f) {
  std::vector<double> values;
  for (const double s : sigmas) values.push_back(f(s));
  return at::tensor(values, at::TensorOptions().dtype(at::kDouble)).view({-1, 1, 1, 1});
}

}  // namespace

std::shared_ptr<const NoiseSchedule> cosine_times() {
  static const auto schedule = std::make_shared<DiscreteSchedule<CosineTimes>>(CosineTimes{});
  return schedule;
}
std::shared_ptr<const NoiseSchedule> extreme_sigmas() { return std::make_shared<ExtremeSigmas>(); }
std::shared_ptr<const Parameterization> v_prediction() { return std::make_shared<VPrediction>(); }
std::shared_ptr<const Parameterization> boundary_prediction(double least) { return std::make_shared<BoundaryPrediction>(least); }

KnowingModel::KnowingModel(Kind kind, Knows knows, Tensor x0) : kind_(std::move(kind)), knows_(knows), x0_(std::move(x0)) {
  for (Tensor* t : {&offset, &of_image, &of_noise, &of_input}) *t = at::zeros({x0_.size(0)}, at::kFloat).set_requires_grad(true);
}

TrainableModel::Prediction KnowingModel::predict(const Tensor& x, const std::vector<double>& sigmas, const Condition&) const {
  calls.push_back({x, sigmas});
  const Parameterization& p = *kind_.parameterization;
  const Tensor input = x.to(at::kDouble), sigma = each(sigmas, [](double v) { return v; });
  const Tensor image =
      knows_ == Knows::images ? x0_.to(at::kDouble) : input * each(sigmas, [](double v) { return s * s / (s * s + v * v); });
  // At the boundary of a consistency model c_out is 0, and any F gives the right estimate.
  const auto inverse = [&](double v) { return p.c_out(v) == 0 ? 0 : 1 / p.c_out(v); };
  const Tensor exact = (image - input * each(sigmas, [&](double v) { return p.c_skip(v); })) * each(sigmas, inverse);
  const Tensor noise = ((input - x0_.to(at::kDouble)) / sigma).to(at::kFloat);
  const Tensor unit = (input * each(sigmas, [](double v) { return 1 / std::hypot(s, v); })).to(at::kFloat);
  const auto row = [](const Tensor& t) { return t.view({-1, 1, 1, 1}); };
  const Tensor f = exact.to(at::kFloat) + row(offset) + x0_ * row(of_image) + noise * row(of_noise) + unit * row(of_input);
  return {f, kind_.variance == LearnedVariance::none ? Tensor() : f * 0};
}

OtherModel ExactTeacher::model(const std::string&) const {
  return {std::shared_ptr<const Denoiser>(std::shared_ptr<void>(), this), cosine_times()};
}
std::shared_ptr<const NoisyClassifier> ExactTeacher::classifier(const std::string&) const { return nullptr; }

Estimate ExactTeacher::denoise(const Tensor& x, double, const Condition&) const {
  const Tensor distance = (x.flatten(1).unsqueeze(1) - x0_.flatten(1).unsqueeze(0)).square().sum(2);
  Estimate d;
  d.x0 = x0_.index_select(0, distance.argmin(1));
  return d;
}

}  // namespace brume
