#pragma once
// The tensors of diffusers' AutoencoderKL and VQModel, and of brume's `kl` and `vq`, which have the names of CompVis' latent-diffusion:
// one table of names for the import and the export.
#include "brume/weights/tensors.h"

namespace brume {

/// Returns the tensors under CompVis' names. The attention's linear projections [C, C], of new names (to_q, to_out.0) or former ones
/// (query, proj_attn), become convolutions [C, C, 1, 1]. Tensors that the table does not have stay as they are. Views of the same memory.
NamedTensors from_diffusers_vae(const NamedTensors& tensors);
/// Returns the tensors under diffusers' names; projections become linear layers [C, C].
NamedTensors to_diffusers_vae(const NamedTensors& tensors);

}  // namespace brume
