#pragma once
// Small networks of CLIP and DINOv2 whose weights follow the rule of tests/parity/references/vision.py.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "brume/weights/tensors.h"

namespace brume::test {

/// The tensors of a CLIP in OpenAI's names: images of 32x32, patches of 8, width 128, 24 features; a text tower of width 64 for the
/// tokenizer "clip" of small_tokenizers().
NamedTensors clip_tensors();
/// The same in transformers' names.
NamedTensors transformers_clip_tensors();
/// The tensors of a DINOv2 in the names of torch.hub: width 128, positions for 70x70, with or without SwiGLU.
NamedTensors dinov2_tensors(int64_t registers, bool gated);
/// The same in transformers' names.
NamedTensors transformers_dinov2_tensors(int64_t registers, bool gated);

/// Image `n` of the reference, [1, 3, height, width] in [-1, 1].
at::Tensor vision_image(int64_t n, int64_t height, int64_t width);

}  // namespace brume::test
