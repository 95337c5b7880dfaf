#pragma once
// A vision transformer (Dosovitskiy et al. 2021, "An image is worth 16x16 words") that gives one vector per image, in the forms of CLIP
// (Radford et al. 2021, sec. 2.4: a norm before the blocks, a projection after them) and of DINOv2 (Oquab et al. 2023; with registers:
// Darcet et al. 2023, "Vision transformers need registers"; layer scale: Touvron et al. 2021, SwiGLU: Shazeer 2020).
#include <string>
#include <vector>

#include "brume/nn/blocks/layers.h"

namespace brume::nn {

/// The names that a file has for the tensors.
enum class VisionNames {
  clip,                 ///< OpenAI's and OpenCLIP's: "visual.transformer.resblocks.0.ln_1.weight"
  transformers_clip,    ///< "vision_model.encoder.layers.0.layer_norm1.weight"
  dinov2,               ///< of torch.hub: "blocks.0.norm1.weight"
  transformers_dinov2,  ///< "encoder.layer.0.norm1.weight"
};

struct VisionTransformerOptions {
  enum class Activation { gelu, quick_gelu, swiglu };
  /// How the table of positions is resized to another number of patches: Keys' cubic interpolation, as DINOv2 without registers does
  /// (scaled by (patches + 0.1) / positions), or as it does with registers (antialiased).
  enum class Positions { offset, antialiased };
  int64_t patch = 14;      ///< pixels per side of a patch
  int64_t positions = 37;  ///< patches per side that the table of positions has
  int64_t width = 0, depth = 0, heads = 1;
  int64_t mlp = 0;         ///< width within the feed-forward layers
  int64_t registers = 0;   ///< register tokens
  int64_t projection = 0;  ///< width of the result; 0 = `width`, without a projection
  Activation activation = Activation::gelu;
  Positions resizing = Positions::offset;
  bool norm_before = false, patch_bias = false, layer_scale = false;
  double eps = 1e-6;  ///< of the layer norms
};

///   x = [class; registers; patches] + positions;   x += scale1 attention(norm x);  x += scale2 mlp(norm x), `depth` times
///   features = projection(norm x)[class]
class VisionTransformer {
 public:
  /// Returns the tensors that a file must have, with their shapes.
  static std::vector<Weight> layout(const VisionTransformerOptions& options, VisionNames names);
  /// Makes the network from the tensors of layout(), float32 with the values of a file, on the device on which it computes.
  VisionTransformer(const VisionTransformerOptions& options, VisionNames names, const std::vector<Weight>& weights, at::Device device);

  /// Returns the features [B, projection or width] of normalised images [B, 3, S, S], S a multiple of the patch; computed in their dtype.
  /// The bits of an image's row do not depend on the batch.
  Tensor operator()(const Tensor& images) const;
  /// Returns the last tokens of the patches, after the norm and without the projection: [B, width, S / patch, S / patch].
  Tensor patches(const Tensor& images) const;
  /// Returns the tokens that the last block receives, [B, 1 + registers + patches, width]; images as above.
  Tensor penultimate(const Tensor& images) const;

 private:
  struct Block {
    LayerNorm norm1, norm2;
    Linear qkv, out, up, down;
  };
  Tensor position_table(int64_t side) const;
  Tensor tokens(const Tensor& images) const;
  /// Returns the tokens after the first `depth` blocks, [B, 1 + registers + patches, W].
  Tensor through_blocks(const Tensor& images, size_t depth) const;

  VisionTransformerOptions o_;
  Tensor class_, positions_, registers_;  ///< [1, 1, W], [1, 1 + positions^2, W], [1, registers, W], float32
  Conv2d patches_;
  LayerNorm before_, after_;
  std::vector<Block> blocks_;
  Linear projection_;
};

}  // namespace brume::nn
