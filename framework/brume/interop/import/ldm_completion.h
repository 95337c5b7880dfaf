#pragma once
// Modules that a file of latent diffusion lacks, out of other files: the first stage (setting vae=…), the text encoder (text_encoder=…).
#include "brume/interop/import/ldm_parts.h"
#include "brume/interop/import/ldm_reading.h"

namespace brume {

/// Returns the tensors of the first stage under CompVis' names: those of the file that `vae` names (CompVis' or diffusers' file, or a
/// directory of diffusers), else those of the checkpoint; empty if it makes pixels. Throws ConfigError if it lacks a first stage that its
/// YAML names, or whose latents its U-Net, of `channels`, makes.
ModuleTensors ldm_first_stage_module(const LdmReading& r, int64_t channels);

/// Returns the tensors of the encoder of the condition under CompVis' names: those of the file that `text_encoder` names (a checkpoint, or
/// a file or directory of transformers), else those of the checkpoint; empty if it has none.
ModuleTensors ldm_condition_module(const LdmReading& r);

/// Returns the tensors that hold SDXL's text encoders, "conditioner.embedders.N.": those of the checkpoint that `text_encoder` names, else
/// those of the file.
NamedTensors ldm_xl_text_tensors(const LdmReading& r);

}  // namespace brume
