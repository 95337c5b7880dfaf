#pragma once
// The encoder of the condition in a latent diffusion model ("cond_stage_model."): CLIP's, OpenCLIP's, or a table of classes.
#include <cstdint>
#include <string>

#include "brume/config/value.h"
#include "brume/interop/import/ldm_parts.h"
#include "brume/interop/import/ldm_reading.h"

namespace brume {

/// The condition of a model, in brume's words.
struct LdmCondition {
  Value conditioner;
  std::vector<Value> guidance;  ///< cfg as its program samples; empty without a null condition
  NamedTensors tensors;         ///< under the conditioner's names
  Files files;                  ///< the tokenizer
};
/// Throws ConfigError if brume has no such encoder.
LdmCondition read_ldm_condition(LdmReading& reading, const LdmUnet& unet);

}  // namespace brume
