#pragma once
// What steers the estimates of a model while sampling.
//
// How to write one:
//   1. Derive a final class from Guidance with a nested `Options` (its fields, `declare(Fields&)`), made from those options.
//   2. Derive a Denoiser that calls the inner one and changes its Estimate; `wrap()` returns it.
//   3. Say in `traits()` what it needs and its place in the chain; let `check()` refuse the models it cannot steer.
//   4. Keep shape and dtype, treat each image alone, and let a scale of 1 (or 0) be the identity, bit for bit.
//   5. Put it into plugins/guidance/NAME.cpp, which ends with `register_guidance_NAME`.
//   6. Read plugins/guidance/cfg_plus_plus.cpp as an example; `brume new guidance NAME` writes another.
//   7. Run test_contracts --gtest_filter='*Guidance*NAME*' (tests/contracts/guidance_test.cpp), and `brume conform guidance NAME`.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "brume/core/dataset.h"
#include "brume/core/denoiser.h"
#include "brume/core/model_source.h"
#include "brume/core/parameterization.h"
#include "brume/core/taps.h"

namespace brume {

/// What can be requested of the samples of a model.
struct Controls {
  int64_t classes = 0;    ///< 0 = the model knows no classes
  bool has_null = false;  ///< it has an unconditional estimate
  bool captions = false;  ///< images are requested in words
};

/// The model that a guidance steers.
struct GuidedModel {
  std::shared_ptr<const NoiseSchedule> schedule;
  const ModelSource& models;  ///< lives as long as wrap() runs
  std::shared_ptr<const Parameterization> parameterization = nullptr;
  Controls controls{};
  ImageShape shape{};      ///< of one x
  TapPoints tap_points{};  ///< of its network
  /// Returns the model's own denoiser, unguided, with these taps in its network; without taps, the one that guidances wrap. Throws
  /// ConfigError naming a block that the network does not have. Empty if there is no network.
  std::function<std::shared_ptr<const Denoiser>(Taps taps)> denoiser{};
};

/// The place of a guidance in the chain of denoisers, from the inside out: `brume sample --cfg` and its like insert theirs before the
/// first of the same place or of a later one.
enum class GuidancePlace {
  estimate,    ///< changes the model's estimate (cfg, autoguidance)
  classifier,  ///< adds the gradient of a classifier
  clip,        ///< limits the values of x0
  inpaint      ///< replaces the known part of x0
};

struct GuidanceTraits {
  /// Has an effect only with samplers that keep the unconditional direction (SamplerTraits::keeps_direction).
  bool needs_direction = false;
  /// Was asked to set the direction of the noise, which those samplers alone keep; all else that it does needs no such sampler.
  bool sets_direction = false;
  /// Was asked to keep a gradient apart for samplers that take it (SamplerTraits::takes_gradient); with others it is as if it was not.
  bool sets_gradient = false;
  bool uses_null = false;  ///< computes the unconditional estimate; one guidance per run can
  GuidancePlace place = GuidancePlace::estimate;
  /// Needs the condition of the empty prompt as well, as `condition.null->null`; a run gives it if it has a negative prompt.
  bool uses_empty = false;
};

/// Wraps a denoiser and returns a steered one. Guidances are applied in the order of the configuration, the first innermost.
class Guidance {
 public:
  static constexpr std::string_view kind = "guidance";
  virtual ~Guidance() = default;
  virtual GuidanceTraits traits() const { return {}; }
  /// Throws ConfigError if a model with these controls cannot be steered; called by `brume check`, and before the first step.
  virtual void check(const Controls&) const {}
  /// Returns the names of the classes that can be requested for the guidance's sake, if the model knows none; empty = it needs none.
  virtual std::vector<std::string> classes(const ModelSource&) const { return {}; }
  virtual std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const = 0;
};

/// Throws ConfigError in the name of the guidance `name` if there is no unconditional estimate.
void need_null(const Controls& controls, std::string_view name);

/// The estimates with and without the condition.
struct EstimatePair {
  Estimate with, without;
};
/// Computes both in one call of twice the batch. Throws ConfigError in the name of the guidance `name` if the condition has no null.
EstimatePair denoise_both(const Denoiser& denoiser, const Tensor& x, double sigma, const Condition& condition, std::string_view name);

/// Returns a + scale (b - a) if both are defined, else `b`.
Tensor extrapolate(const Tensor& a, const Tensor& b, double scale);

}  // namespace brume
