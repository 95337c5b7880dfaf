#pragma once
// The first stage: images to latents and back.
//
// How to write one:
//   1. Derive a final class from Autoencoder with a nested `Options` (its fields, `declare(Fields&)`), made from (Options, Context).
//   2. Implement `latent()`, `encode_moments()`, `decode()` and `weights()`; `latents_of()` and `moments()` if latents are drawn.
//   3. Implement `reconstruct()` and `last_layer()` if brume is to train it.
//   4. Without weights and files, say `static constexpr bool weightless = true`: `brume check` then knows the latent's shape.
//      If latents are the images, say `static constexpr bool neutral = true`.
//   5. Put it into plugins/autoencoders/NAME.cpp, which ends with `register_autoencoder_NAME`.
//   6. Read plugins/autoencoders/kl.cpp as an example; `brume new autoencoder NAME` writes another.
//   7. Run test_contracts --gtest_filter='*Autoencoder*NAME*' (tests/contracts/autoencoder_test.cpp).
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "brume/core/dataset.h"
#include "brume/core/files.h"
#include "brume/core/model_source.h"
#include "brume/core/network.h"

namespace at {
struct Generator;
}

namespace brume {

/// Images to scaled latents and back; the identity is pixel space. `const` use is safe from several threads.
class Autoencoder {
 public:
  static constexpr std::string_view kind = "autoencoder";
  struct Context {
    ImageShape image;
    uint64_t seed = 0;
    const Files* stored = nullptr;             ///< the files of a checkpoint, whose weights are copied in afterwards; null = a new model
    const ModelSource* models = &no_models();  ///< opens other models; lives as long as the constructor runs
    at::ScalarType dtype = at::kFloat;         ///< the compute dtype of its networks if they are not trained
  };
  virtual ~Autoencoder() = default;
  /// Returns the shape of the latent of an image of this shape. Throws ConfigError that names the allowed sizes if the image has no latent.
  virtual ImageShape latent(const ImageShape& image) const = 0;
  /// Returns the shape of encode_moments() of one image of this shape.
  virtual ImageShape moments(const ImageShape& image) const { return latent(image); }

  /// Returns what latents are drawn from, float32: mean and log variance (`kl`), the latents themselves for most. A training with
  /// encoded images stores these. images: [B, C, H, W] in [-1, 1].
  virtual Tensor encode_moments(const Tensor& images) const = 0;
  /// Returns N(0, 1) of the shape of a tensor.
  using Normal = std::function<Tensor(const Tensor& like)>;
  /// Returns latents of about unit scale: drawn if `normal` is not empty and there is something to draw, else the mode.
  virtual Tensor latents_of(const Tensor& moments, const Normal& /*normal*/) const { return moments; }
  /// Returns the same with one draw from a CPU generator; the mode if it is null.
  Tensor latents_of(const Tensor& moments, at::Generator* random) const { return latents_of(moments, normal_of(random)); }
  static Normal normal_of(at::Generator* random);
  /// Returns the mode of the latents of images [B, C, H, W] in [-1, 1].
  Tensor encode(const Tensor& images) const { return latents_of(encode_moments(images), Normal()); }
  /// Returns images in [-1, 1], float32.
  virtual Tensor decode(const Tensor& latents) const = 0;
  /// Returns about how many bytes decode() needs for one image of this shape; 0 if that is not known. Sampling decodes in tiles if they
  /// are more than the system has.
  virtual int64_t decoding_memory(const ImageShape& /*image*/) const { return 0; }
  virtual std::vector<Weight> weights() const = 0;

  /// One pass of training, in the dtype of `images`.
  struct Reconstruction {
    Tensor images;   ///< [B, C, H, W], differentiable
    Tensor penalty;  ///< scalar: the weighted regularization of the latents (KL term, commitment)
    Tensor latents;  ///< before scaling
  };
  /// Throws ConfigError if it cannot be trained. `random`: a CPU generator, the only source of random numbers.
  virtual Reconstruction reconstruct(const Tensor& images, at::Generator& random) const;
  /// Returns the weight of the decoder's last layer, which balances adversarial training (Esser et al. 2021, eq. 7).
  virtual Tensor last_layer() const { return {}; }
  /// Updates those of `weights` that follow averages instead of gradients (a moving codebook), after each optimizer step.
  virtual void updated(int64_t /*step*/, at::Generator& /*random*/) const {}

  /// Returns the YAML by which a checkpoint names it, if that differs from the configuration's (`checkpoint` becomes what it opened).
  virtual std::optional<std::string> stored_as() const { return {}; }
  /// Returns the number of codebook entries; nothing if latents are continuous.
  virtual std::optional<int64_t> codes() const { return {}; }
};

}  // namespace brume
