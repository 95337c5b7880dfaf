#pragma once
// What a network is told beside words, in brume's words the conditioner `composite`, of clip_text and of
//   concat_image   inpainting, as Stable Diffusion has it (Rombach et al. 2022, sec. 4.5): beside the latent stand the mask and the latent
//                  of the image without what is masked, 2 C + 1 channels in this order, and the null condition keeps them
//   class_label    the class embedding of diffusers' UNet2DConditionModel (num_class_embeds)
#include <cstdint>
#include <string>
#include <vector>

#include "brume/config/value.h"

namespace brume {

/// What such a network takes, where latents have `latent` channels.
inline int64_t inpainting_channels(int64_t latent) { return 2 * latent + 1; }

/// Of a model that is told words: where they stand in its conditioner.
struct Words {
  brume::Value conditioner = brume::Value::map();  ///< clip_text, or what else there is where nothing is told beside it
  std::string prefix = "conditioner.";             ///< of its tensors in a model
  bool inpainting = false;
  brume::Value classes = brume::Value::map();  ///< class_label; empty where there is none beside words
};
Words words_of(const brume::Value& conditioner);

/// The inverse: the conditioner as YAML, and where the words' tensors stand.
std::string words_beside(const std::string& words, const std::vector<std::string>& beside);
std::string words_prefix(const std::vector<std::string>& beside);
constexpr const char* masked_image = "{type: concat_image, image: masked, keep: true}";

}  // namespace brume
