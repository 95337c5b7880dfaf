#pragma once
// Conditions of a network that takes more than words: the conditioner `composite`, of clip_text and of
//   concat_image   inpainting, as Stable Diffusion has it (Rombach et al. 2022, sec. 4.5): the mask and the latent
//                  of the image without what is masked follow the latent: 2 C + 1 channels in this order. The null condition keeps them
//   class_label    the class embedding of diffusers' UNet2DConditionModel (num_class_embeds)
//   guidance_scale the scale that a latent consistency model imitates (time_cond_proj_dim)
#include <cstdint>
#include <string>
#include <vector>

#include "brume/config/value.h"

namespace brume {

/// Returns the input channels of a network that inpaints latents of `latent` channels.
inline int64_t inpainting_channels(int64_t latent) { return 2 * latent + 1; }

/// A text encoder of a model, a `clip_text`.
struct TextEncoderPlace {
  brume::Value options = brume::Value::map();
  std::string prefix;  ///< of its tensors in a model
  std::string ending;  ///< of its folders in a diffusers directory: "text_encoder_2" has "_2"
};

/// The conditioner of words within a model's conditioner.
struct Words {
  brume::Value conditioner = brume::Value::map();  ///< clip_text, SDXL's joint_text, or the whole conditioner if it has no words
  std::string prefix = "conditioner.";             ///< of its tensors in a model
  bool inpainting = false;
  brume::Value classes = brume::Value::map();  ///< class_label; empty if the model has no classes
  brume::Value sizes = brume::Value::map();    ///< image_sizes; empty if the model is not SDXL
  bool guidance = false;                       ///< the model takes a guidance scale

  bool xl() const { return !sizes.entries.empty(); }
  /// Returns the text encoders; none if there is no clip_text.
  std::vector<TextEncoderPlace> encoders() const;
};
Words words_of(const brume::Value& conditioner);

/// Returns the conditioner of words and of `others`; `words` itself if `others` is empty.
brume::Value composite_of(const brume::Value& words, const std::vector<brume::Value>& others);
/// Returns the prefix of the tensors of the words in composite_of(words, others).
std::string words_prefix(const std::vector<brume::Value>& others);
/// Returns SDXL's conditioner of words, of one or two `clip_text`; the last of them has the option `projection`. `zeros`: an empty negative
/// prompt is zeros.
brume::Value xl_words(std::vector<brume::Value> encoders, bool zeros);
/// Returns SDXL's conditioner of sizes; with `score` the refiner's.
brume::Value xl_sizes(bool score);

/// Returns the conditioner of inpainting.
brume::Value masked_image();

}  // namespace brume
