#pragma once
// The text encoders of SDXL in one file, "conditioner.embedders.N.": CLIP's ViT-L, which the refiner lacks, and OpenCLIP's bigG, whose
// pooled vector its U-Net takes with the sizes of the image.
#include "brume/interop/import/ldm_condition.h"

namespace brume {

/// Throws ConfigError if the encoders are not those of the U-Net.
LdmCondition read_xl_condition(LdmReading& reading, const LdmUnet& unet);

}  // namespace brume
