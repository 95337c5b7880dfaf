#pragma once
// Images larger than memory allows, piece by piece through a first stage.
#include "brume/core/autoencoder.h"

namespace brume {

/// Pieces that overlap and are blended linearly in the overlaps. Their outermost parts count for nothing: there a network sees the edge of
/// its piece, not the image beyond. So the result is that of the whole image if the network sees at most a sixteenth of `tile` pixels
/// far, and near to it if it sees further or normalises over positions.
struct Tiling {
  int64_t tile = 512;  ///< side of a piece, in pixels
};

/// Decodes as Autoencoder::decode; latents: [B, C, h, w], of images of this shape. Throws ConfigError if a piece would hold less than four
/// latents per side.
Tensor decode_tiled(const Autoencoder& autoencoder, const Tensor& latents, const ImageShape& image, const Tiling& tiling);
/// Encodes as Autoencoder::encode_moments.
Tensor encode_moments_tiled(const Autoencoder& autoencoder, const Tensor& images, const Tiling& tiling);

}  // namespace brume
