#pragma once
// What a sample can be asked to be, and how the network is told.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "brume/core/condition.h"
#include "brume/core/dataset.h"
#include "brume/core/files.h"
#include "brume/core/network.h"

namespace at {
struct Generator;
}

namespace brume {
class Autoencoder;
struct PromptReading;

/// What a batch is to be, as it is known.
struct ConditionRequest {
  const std::vector<Annotation>& annotations;  ///< one an image
  at::Generator* random = nullptr;             ///< while training: the source of all that is drawn. Null = sampling
  at::ScalarType dtype = at::kFloat;           ///< what networks compute in
  at::Device device = at::kCPU;                ///< where they do
  ImageShape shape = {};                       ///< of the images that are to be made
  Tensor images = {};                          ///< [B, C, H, W] in [-1, 1]: those learned from, or those given to make others of
  Tensor masks = {};                           ///< [B, 1, H, W] in [0, 1], 1 = to be made anew; undefined = not given
  const Autoencoder* first_stage = nullptr;    ///< of the model
  /// While sampling: N(0, 1) of the shape of a tensor, for latents that are drawn. Empty = their mode.
  std::function<Tensor(const Tensor& like)> normal = {};
  const PromptReading* reading = nullptr;  ///< while sampling; null = as it was trained
  bool whole = false;                      ///< while training: not to be replaced by the null condition, which is given beside

  /// What decides whether an image's condition is replaced by the null condition; null where none is.
  at::Generator* dropout() const { return whole ? nullptr : random; }
};

/// Turns what is known of images into what the network is told. `const` use is safe from several threads.
class ConditionEncoder {
 public:
  virtual ~ConditionEncoder() = default;
  /// One row an annotation, with the null condition beside it where there is one: that of the annotation's `negative` caption, for
  /// captions. Differentiable in the weights. Throws ConfigError where an annotation lacks what is needed.
  virtual Condition encode(const ConditionRequest& request) const = 0;
  /// What is trained with the network, in a stable order; empty for most.
  virtual std::vector<Weight> weights() const { return {}; }
  /// The files it was made from and cannot do without: a checkpoint keeps them.
  virtual Files files() const { return {}; }

  Condition encode(const std::vector<Annotation>& annotations, at::Generator* random = nullptr) const {
    return encode(ConditionRequest{annotations, random});
  }
};

/// What an encoder is made from.
struct EncoderOrigin {
  uint64_t seed = 0;              ///< of the initial weights
  const Files* stored = nullptr;  ///< not null: weights are copied in from a checkpoint afterwards, which holds these files
};

/// A value, made while the configuration is read: what the rest of the model must know of its condition.
class Conditioner {
 public:
  static constexpr std::string_view kind = "conditioner";
  virtual ~Conditioner() = default;
  /// Number of classes an image can have; 0 = none.
  virtual int64_t classes() const { return 0; }
  /// Rows of the class embedding the network needs, the null class included; 0 = none.
  virtual int64_t class_rows() const { return 0; }
  /// Width of the tokens the network attends to (Condition::context); 0 = none.
  virtual int64_t context_width() const { return 0; }
  /// Channels that are laid beside the network's input (Condition::image), for images of this shape and their latents.
  virtual int64_t image_channels(const ImageShape& /*image*/, const ImageShape& /*latent*/) const { return 0; }
  /// True where a mask says what of an image is to be made anew (ConditionRequest::masks).
  virtual bool masks() const { return false; }
  /// True where an image is asked for in words.
  virtual bool captions() const { return false; }
  /// True where ConditionRequest::reading says how.
  virtual bool reads_prompts() const { return false; }
  /// True where there is an unconditional estimate.
  virtual bool has_null() const { return false; }
  /// Makes its weights and reads its files.
  virtual std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin& origin) const = 0;
};

}  // namespace brume
