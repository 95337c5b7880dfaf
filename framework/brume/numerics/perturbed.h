#pragma once
// Guidance away from what the model predicts with a part of its network perturbed: skipped blocks, changed attention.
#include <string>
#include <vector>

#include "brume/config/fields.h"
#include "brume/core/guidance.h"
#include "brume/numerics/guidance_scale.h"

namespace brume {

struct PerturbedOptions : GuidanceScale {
  PerturbedOptions() { neutral = 0; }
  std::vector<std::string> blocks{};
  /// Declares the options. `what`: the description of `blocks`.
  void declare(Fields& f, const char* what);
  /// Throws ConfigError if no block is named; `example` is one.
  void check(const char* example) const;
};

/// Returns D + scale (D_model - D_perturbed) for sigma_lo < sigma <= sigma_hi. D is the inner estimate; the two others are the model's own,
/// with the condition, the second with `taps` in its network.
std::shared_ptr<const Denoiser> perturbed(std::shared_ptr<const Denoiser> inner, const GuidedModel& model, Taps taps,
                                          const PerturbedOptions& options);

/// Returns taps that put `attention` into the blocks of the options. Throws ConfigError if the network has no such attention.
Taps attention_taps(const GuidedModel& model, const PerturbedOptions& options, const Taps::Attention& attention);

}  // namespace brume
