#pragma once
// Weights of diffusers' AutoencoderKL (and VQModel) under the names of CompVis' latent-diffusion, which brume's `kl` and `vq` have.
#include "brume/weights/tensors.h"

namespace brume {

/// Blocks are numbered from the image in both halves, residual blocks and attention are called by their letters, and the attention's
/// linear projections [C, C], old names (query, proj_attn) or new (to_q, to_out.0), become convolutions [C, C, 1, 1]. Tensors that
/// are named otherwise stay as they are. Views of the same memory.
NamedTensors from_diffusers_vae(const NamedTensors& tensors);

}  // namespace brume
