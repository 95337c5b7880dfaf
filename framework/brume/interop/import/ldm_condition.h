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
  std::vector<Value> others{};  ///< conditioners besides that of words
  int64_t size_channels = 0;    ///< of each size that the U-Net embeds; 0 = none
};
/// Returns CLIP's tokenizer, which such files lack: that of the folder which the setting `tokenizer` names, of the folder "tokenizer" next
/// to the file, or of the environment. Throws ConfigError if none of them has it.
Files ldm_tokenizer(const LdmReading& reading);
/// Returns the heads of a text encoder: as set, else one per 64 channels. Throws ConfigError if that is no whole number.
int64_t ldm_text_heads(const LdmReading& reading, int64_t width);
/// Throws ConfigError if brume has no such encoder.
LdmCondition read_ldm_condition(LdmReading& reading, const LdmUnet& unet);

}  // namespace brume
