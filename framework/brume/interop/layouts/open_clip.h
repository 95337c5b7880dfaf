#pragma once
// OpenCLIP's text encoder, as the files of SD 2 have it below "cond_stage_model.model.", under the names of transformers' CLIPTextModel,
// which brume's clip_text has, and back. q, k and v are one projection there (in_proj_weight, in_proj_bias).
#include <cstdint>

#include "brume/weights/tensors.h"

namespace brume {

/// Returns the first `depth` layers; of what else there is, what clip_text has a place for. Views of the same memory.
NamedTensors from_open_clip(const NamedTensors& tensors, int64_t depth);
/// Returns the inverse, with `depth` layers, and, if `spare`, one more of zeros: programs that leave out the last layer (layer:
/// penultimate, as SD 2 does) leave out that one, and in others it adds nothing to what it is given. Throws ConfigError if a tensor has no
/// name there.
NamedTensors to_open_clip(const NamedTensors& tensors, int64_t depth, bool spare = true);

}  // namespace brume
