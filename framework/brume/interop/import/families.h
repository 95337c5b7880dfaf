#pragma once
// The families, each in a file of its own.
#include "brume/interop/import/import.h"

namespace brume {

extern const Family diffusers_directory, exported_directory, tiny_autoencoder;
extern const Family compvis_ldm, compvis_first_stage;
extern const Family edm_network, edm2_network, guided_diffusion;
extern const Family diffusion_transformer, diffusers_transformer, diffusers_pixart;
extern const Family mmdit_network, diffusers_mmdit;

}  // namespace brume
