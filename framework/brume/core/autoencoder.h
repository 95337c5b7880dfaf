#pragma once
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

/// The first stage: images to scaled latents and back. Pixel space is the identity. `const` use is safe from several threads.
class Autoencoder {
 public:
  static constexpr std::string_view kind = "autoencoder";
  struct Context {
    ImageShape image;
    uint64_t seed = 0;
    const Files* stored = nullptr;             ///< not null: weights are copied in from a checkpoint afterwards, which holds these files
    const ModelSource* models = &no_models();  ///< where other models are; lives as long as the constructor runs
    at::ScalarType dtype = at::kFloat;         ///< what its networks compute in where they are not trained
  };
  virtual ~Autoencoder() = default;
  /// Shape of the latent of an image of this shape. Throws ConfigError where there is none, telling which sizes there are.
  virtual ImageShape latent(const ImageShape& image) const = 0;
  /// Shape of what `moments` gives for an image of this shape.
  virtual ImageShape moments(const ImageShape& image) const { return latent(image); }

  /// What is known of the latents before one is drawn, and what is kept where latents are made once for a whole training: mean and
  /// log variance of `kl`, the latents themselves of most. images: [B, C, H, W] in [-1, 1]. Float32.
  virtual Tensor encode_moments(const Tensor& images) const = 0;
  /// N(0, 1) of the shape of a tensor.
  using Normal = std::function<Tensor(const Tensor& like)>;
  /// Latents of unit-like scale; drawn where there is something to draw and `normal` is not empty, else the mode.
  virtual Tensor latents_of(const Tensor& moments, const Normal& /*normal*/) const { return moments; }
  /// The same by one draw from a generator of the host; the mode where it is null.
  Tensor latents_of(const Tensor& moments, at::Generator* random) const { return latents_of(moments, normal_of(random)); }
  static Normal normal_of(at::Generator* random);
  /// [B, C, H, W] in [-1, 1] to latents of unit-like scale: the mode.
  Tensor encode(const Tensor& images) const { return latents_of(encode_moments(images), Normal()); }
  /// Latents to images in [-1, 1], float32.
  virtual Tensor decode(const Tensor& latents) const = 0;
  virtual std::vector<Weight> weights() const = 0;

  /// One pass of training, in the dtype of `images`.
  struct Reconstruction {
    Tensor images;   ///< [B, C, H, W], differentiable
    Tensor penalty;  ///< scalar: what keeps the latents in shape (the KL term, the commitment), weighted
    Tensor latents;  ///< before scaling
  };
  /// Throws ConfigError where it is not to be trained. `random`: a CPU generator, the only randomness.
  virtual Reconstruction reconstruct(const Tensor& images, at::Generator& random) const;
  /// The weight of the last layer of the decoder, by which adversarial training is balanced (Esser et al. 2021, eq. 7).
  virtual Tensor last_layer() const { return {}; }
  /// What of `weights` is neither learned by gradients nor constant is brought up to date after each update (a moving codebook).
  virtual void updated(int64_t /*step*/, at::Generator& /*random*/) const {}

  /// How a checkpoint of a model names it, in YAML, where that is not as the configuration does (`checkpoint` is what it opened).
  virtual std::optional<std::string> stored_as() const { return {}; }
  /// Entries of the codebook, one of which each position of a latent becomes; none where latents are numbers.
  virtual std::optional<int64_t> codes() const { return {}; }
};

}  // namespace brume
