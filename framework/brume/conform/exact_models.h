#pragma once
// Models that objectives and guidances are measured on: their schedule, their parameterizations, and networks that know the answer.
#include <memory>
#include <vector>

#include "brume/core/model_source.h"
#include "brume/core/objective.h"

namespace brume {

/// Returns the cosine schedule of 1000 training times (Nichol & Dhariwal 2021, eq. 17).
std::shared_ptr<const NoiseSchedule> cosine_times();
/// Returns a continuous schedule of sigma from 1e-4 to 1e6.
std::shared_ptr<const NoiseSchedule> extreme_sigmas();
/// Returns v prediction (Salimans & Ho 2022).
std::shared_ptr<const Parameterization> v_prediction();
/// Returns a parameterization that is the identity at `least` (Song et al. 2023, eq. 5).
std::shared_ptr<const Parameterization> boundary_prediction(double least);

/// A network that gives F* + error for the estimate x0 or, for data N(0, s^2) in every pixel, for the exact E[x0 | x].
class KnowingModel final : public TrainableModel {
 public:
  struct Kind {
    std::shared_ptr<const NoiseSchedule> schedule;
    std::shared_ptr<const Parameterization> parameterization;
    LearnedVariance variance = LearnedVariance::none;
  };
  enum class Knows { images, distribution };
  /// One call of the network.
  struct Call {
    Tensor x;  ///< [B, C, H, W]
    std::vector<double> sigmas;
  };
  static constexpr double s = 0.25;  ///< the standard deviation of the data

  /// Makes a model that knows the images x0, [B, C, H, W] float32, or the distribution N(0, s^2).
  KnowingModel(Kind kind, Knows knows, Tensor x0);
  Prediction predict(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition) const override;
  const NoiseSchedule& schedule() const override { return *kind_.schedule; }
  const Parameterization& parameterization() const override { return *kind_.parameterization; }
  LearnedVariance variance() const override { return kind_.variance; }

  Tensor offset, of_image, of_noise, of_input;  ///< [B], require gradients; error = offset + of_image x0 + of_noise n + of_input x / |x|
  mutable std::vector<Call> calls;

 private:
  Kind kind_;
  Knows knows_;
  Tensor x0_;
};

/// Opens, at any path, a denoiser that returns the one of the given images that is nearest to x.
class ExactTeacher final : public ModelSource, public Denoiser {
 public:
  explicit ExactTeacher(Tensor x0) : x0_(std::move(x0)) {}
  OtherModel model(const std::string& path) const override;
  std::shared_ptr<const NoisyClassifier> classifier(const std::string& path) const override;
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override;

 private:
  Tensor x0_;
};

}  // namespace brume
