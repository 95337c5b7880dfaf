#pragma once
// Inpainting as Stable Diffusion has it (Rombach et al. 2022, sec. 4.5): the network is told words, and beside the latent it sees the mask
// and the latent of the image without what is masked, 2 C + 1 channels in this order. In brume's words that is the conditioner `several`,
// of clip_text and of a concat_image that the null condition keeps.
#include <cstdint>
#include <string>

#include "config/value.h"

namespace brume::io {

/// What such a network takes, where latents have `latent` channels.
inline int64_t inpainting_channels(int64_t latent) { return 2 * latent + 1; }

/// Of a model that is told words: where they stand in its conditioner.
struct Words {
  brume::Value conditioner = brume::Value::map();  ///< clip_text, or what else there is where nothing is inpainted
  std::string prefix = "conditioner.";             ///< of its tensors in a model
  bool inpainting = false;
};
Words words_of(const brume::Value& conditioner);
/// The inverse: the conditioner as YAML, whose words' tensors stand below `inpainting_words`.
std::string inpainting_conditioner(const std::string& words);
constexpr const char* inpainting_words = "conditioner.0.";

}  // namespace brume::io
