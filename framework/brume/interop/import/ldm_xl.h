#pragma once
// The text encoders of SDXL in one file, "conditioner.embedders.N.": CLIP's ViT-L, which the refiner lacks, and OpenCLIP's bigG, whose
// pooled vector its U-Net takes with the sizes of the image. And the models of its shape that were trained on EDM's levels, of which
// tensors tell: "edm_mean" and "edm_std" (Playground v2.5), "edm_vpred.sigma_max" (CosXL).
#include <optional>
#include <vector>

#include "brume/interop/import/ldm_condition.h"

namespace brume {

/// Throws ConfigError if the encoders are not those of the U-Net.
LdmCondition read_xl_condition(LdmReading& reading, const LdmUnet& unet);

/// The noise levels of EDM, and what the first stage of such a model has of its own.
struct XlLevels {
  Value noise, parameterization;
  double scale = 0.13025;           ///< of the latents
  std::vector<double> means, stds;  ///< of their channels; empty = 0 and 1

  /// Sets the noise embedding of the network and the statistics of the first stage.
  void set(Value& network, Value& stage) const;
  /// Returns the sampling of such a model. `guidance`: as that of SDXL.
  Value sample(const std::vector<Value>& guidance) const;
};
/// Returns the levels of EDM if tensors of the file tell of them. Throws ConfigError if the tensors are not what they should be.
std::optional<XlLevels> xl_levels(const LdmReading& reading);

}  // namespace brume
