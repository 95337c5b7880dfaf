#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "brume/core/dataset.h"
#include "brume/core/denoiser.h"
#include "brume/core/model_source.h"
#include "brume/core/parameterization.h"

namespace brume {

/// What a sample of a model can be asked to be, as its configuration tells.
struct Controls {
  int64_t classes = 0;    ///< 0 = the model knows no classes
  bool has_null = false;  ///< it gives an unconditional estimate too
  bool captions = false;  ///< an image is asked for in words
};

/// What a guidance may want to know of the model it steers.
struct GuidedModel {
  std::shared_ptr<const NoiseSchedule> schedule;
  const ModelSource& models;  ///< lives as long as wrap() runs
  std::shared_ptr<const Parameterization> parameterization = nullptr;
  Controls controls{};
  ImageShape shape{};  ///< of one x
};

/// A decorator of denoisers: takes one, gives one that is steered. Guidances compose in the order of the configuration, the
/// first innermost.
class Guidance {
 public:
  static constexpr std::string_view kind = "guidance";
  virtual ~Guidance() = default;
  /// Throws ConfigError where a model with these controls cannot be steered so: found by `brume check`, and before any step.
  virtual void check(const Controls&) const {}
  /// Names of the classes an image can be asked to be for its sake, where the model itself knows none; empty = it needs none.
  virtual std::vector<std::string> classes(const ModelSource&) const { return {}; }
  /// True where it is of no effect with samplers that do not keep the unconditional direction (Sampler::keeps_direction).
  virtual bool needs_direction() const { return false; }
  /// True where it asks for the estimate without the condition; one guidance of a run can.
  virtual bool uses_null() const { return false; }
  virtual std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const = 0;
};

/// Throws ConfigError, speaking for the guidance `name`, where there is no unconditional estimate.
void need_null(const Controls& controls, std::string_view name);

/// The estimates with and without the condition.
struct EstimatePair {
  Estimate with, without;
};
/// One call of twice the batch. Throws ConfigError, speaking for the guidance `name`, where the condition has no null.
EstimatePair denoise_both(const Denoiser& denoiser, const Tensor& x, double sigma, const Condition& condition, std::string_view name);

/// a + scale (b - a), where both are defined; else `b`.
Tensor extrapolate(const Tensor& a, const Tensor& b, double scale);

}  // namespace brume
