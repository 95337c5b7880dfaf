#pragma once
// The images to make of a model, and how.
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "brume/core/dataset.h"
#include "brume/core/guidance.h"
#include "brume/core/row_noise.h"
#include "brume/core/sampler.h"
#include "brume/core/tensor.h"

namespace brume {
class Registry;
class Value;

/// What a caller calls the fields of its request in messages, by field: {{"steps", "--steps"}}. Other fields keep their own names.
using FieldNames = std::map<std::string, std::string, std::less<>>;
/// Returns what `field` is called.
std::string called(const FieldNames& names, std::string_view field);

/// A step of a batch of images.
struct SampleProgress {
  int64_t done = 0, total = 0;      ///< of the whole request, in image steps: images times steps
  int64_t first = 0;                ///< index of the batch's first image
  const Step& step;                 ///< x, sigma and the estimate x0 of the batch, on the model's device
  std::function<Tensor()> preview;  ///< decodes x0: returns images [B, C, H, W] in [-1, 1] on the host
};

/// Returns how far a run has come, in image steps, `step` being one of the batch from image `first` on. A sampler with steps of its own
/// moves by the share of them that is known.
int64_t image_steps(int64_t first, int64_t steps, const Step& step);

/// Fields that are left out are as the model's own section `sample:` has them, or as said here.
struct ImageRequest {
  // What the images show.
  std::vector<std::string> prompts{};    ///< captions, taken in turn; for models that take captions
  std::vector<std::string> negatives{};  ///< negative prompts: one for all, or one per prompt
  std::vector<std::string> classes{};    ///< names or numbers, taken in turn; for models that know classes
  int64_t images_per_prompt = 0;         ///< images of each prompt, one after the other; 0 = prompts are taken in turn
  int64_t count = 0;                     ///< number of images; 0 = one per prompt or class that is named, or 16
  int64_t first = 0;                     ///< number of the first image: image i depends on (seed, first + i) and what it shows alone
  uint64_t seed = 0;                     ///< of the noise
  std::vector<ImageOfRun> runs{};        ///< one per image: makes images of several runs at once, instead of `seed` and `first`
  int64_t height = 0, width = 0;         ///< pixels; 0 = the size that the model was trained for
  std::optional<SizeIds> sizes{},
      negative_sizes{};  ///< for models that are conditioned on sizes (SDXL); absent = those of the image, `sizes`

  std::string wildcards{};  ///< folder of NAME.txt, a line of which stands for each __NAME__ in a caption

  /// Sampling as another program does it, "a1111:DPM++ 2M Karras" (like.h); the fields below and the settings are laid over it.
  std::string like{};
  // How they are sampled. Texts are YAML as in a configuration: "ddim" or "{type: ddim, eta: 1}".
  std::optional<int64_t> steps{};
  std::string sampler{}, spacing{};
  std::optional<double> cfg{};               ///< scale of classifier-free guidance
  std::string classifier{};                  ///< file of a classifier that guides
  std::optional<double> classifier_scale{};  ///< of that guidance
  std::string noise_order{};                 ///< "per_image", "batch" or "brownian"
  std::optional<int64_t> tile{};             ///< pixels per side of the tiles in which latents are decoded; 0 = whole images
  std::vector<std::string> embeddings{};     ///< files of textual inversions, FILE or FILE:WORD
  std::optional<bool> prompt_weights{};      ///< (word:1.3), (word) and [word] change the weight of a word
  std::optional<bool> prompt_changes{};      ///< [a:b:0.5], [a|b] and a AND b
  std::vector<std::string> regions{};        ///< FILE or "all": where each part of a prompt joined by AND counts, white; none: everywhere
  std::string long_prompts{};                ///< "cut" or "chunks"
  std::vector<int64_t> clip_skip{};          ///< last layers of CLIP's text encoder to skip; several: in equal shares of the steps
  std::vector<std::string> settings{};       ///< "sample.guidance.0.scale=3", laid over all above but the guidances

  // Images that steer them block by block (ControlNet); instead of the model's own `sample.control`.
  std::vector<std::string> controls{};        ///< FILE, FILE:SCALE or FILE:SCALE@FROM-TO, shares of the steps
  std::vector<std::string> control_images{};  ///< FILE or PREPROCESSOR:FILE: one for all controls, or one per control
  std::vector<std::string> control_masks{};   ///< FILE, white where a control counts: none, one for all controls, or one per control

  std::string image_encoder{};  ///< file or directory of the CLIP that sees the image of IP-Adapters

  // What they start from.
  Tensor image{};                            ///< [1 or count, C, H, W] in [-1, 1]
  Tensor latents{};                          ///< [1 or count, C, h, w] to start from, instead of an image
  Tensor mask{};                             ///< [1 or count, 1, H, W] in [0, 1], 1 = to generate; needs an image
  std::optional<double> strength{};          ///< share of the steps that is run on the image, in (0, 1]; 0.6, or 1 if there is a mask
  std::optional<uint64_t> variation_seed{};  ///< of noise that is blended into the seed's
  std::optional<double> variation{};         ///< share of that noise, in [0, 1], 0 = the seed's alone; 0.1
  std::optional<double> hires{};             ///< factor of a second pass: the images are enlarged and sampled again from `hires_strength`
  std::optional<double> hires_strength{};    ///< share of the steps of that pass, in (0, 1]; 0.5
  std::string hires_of{};                    ///< what is enlarged: "pixels" or "latents"; "" = "pixels"
  std::filesystem::path refiner{};           ///< a model that takes the last steps (SDXL's refiner)
  std::optional<double> refine_from{};       ///< share of the steps before those; 0.8
  Tensor initial_noise{};                    ///< [count, C, H, W] N(0, 1) in the latents' shape, instead of the seed's
  int64_t batch = 16;                        ///< images per batch; changes speed and memory alone

  // Callbacks, on the thread of the caller.
  std::function<bool(const SampleProgress&)> progress{};            ///< once per step of a batch; false cancels
  std::function<void(const Tensor& x)> ended{};                     ///< a batch's last x, before it is decoded
  std::function<void(int64_t first, const Tensor& images)> made{};  ///< a batch's images, as soon as they are decoded
  FieldNames names{};                                               ///< what messages call these fields
};

/// Lays the request's settings over `root`, which has the section `sample:`, except for inpainting. `registry` has the guidances. Throws
/// ConfigError.
void apply_settings(const Registry& registry, const ImageRequest& request, Value& root);
/// Adds the guidance `inpaint` to `root`, outermost, if it has none.
void add_inpainting(const Registry& registry, Value& root);

/// Returns the annotation of each image. `classes`: names of the classes that can be requested. Throws ConfigError if the request does not
/// fit a model with these controls.
std::vector<Annotation> annotations_of(const ImageRequest& request, const Controls& controls, const std::vector<std::string>& classes);

}  // namespace brume
