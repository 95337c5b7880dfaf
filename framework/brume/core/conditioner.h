#pragma once
// What can be requested of a sample, and how the network receives it.
//
// How to write one:
//   1. Derive a final class from Conditioner with a nested `Options` (its fields, `declare(Fields&)`), made from those options.
//   2. Implement `traits()` (what the rest of the model must know) and `encoder()`.
//   3. Derive a final class from ConditionEncoder: `encode()` gives one row per annotation and, if traits say so, the null condition.
//   4. Draw from `request.random` alone, and let an image's row depend on that image alone.
//   5. Put both into one file, plugins/conditioners/NAME.cpp, that ends with `register_conditioner_NAME`.
//   6. Read plugins/conditioners/class_label.cpp as an example; `brume new conditioner NAME` writes another.
//   7. Run test_contracts --gtest_filter='*Conditioner*NAME*' (tests/contracts/conditioner_test.cpp).
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

/// What is known of the images of a batch.
struct ConditionRequest {
  const std::vector<Annotation>& annotations;  ///< one per image
  at::Generator* random = nullptr;             ///< while training: the source of every random number. Null = sampling
  at::ScalarType dtype = at::kFloat;           ///< the compute dtype of networks
  at::Device device = at::kCPU;                ///< the device of networks
  ImageShape shape = {};                       ///< of the images to generate
  Tensor images = {};                          ///< [B, C, H, W] in [-1, 1]: training images, or the images given to a run
  Tensor masks = {};                           ///< [B, 1, H, W] in [0, 1], 1 = to generate; undefined = not given
  const Autoencoder* first_stage = nullptr;    ///< of the model
  /// While sampling: returns N(0, 1) of the shape of a tensor, for drawing latents. Empty = their mode.
  std::function<Tensor(const Tensor& like)> normal = {};
  const PromptReading* reading = nullptr;  ///< while sampling; null = as the model was trained
  bool whole = false;                      ///< while training: keep every condition; the caller drops them itself

  /// Returns the generator that decides which conditions are replaced by the null condition; null if none is.
  at::Generator* dropout() const { return whole ? nullptr : random; }
};

/// Turns what is known of images into the network's condition. `const` use is safe from several threads.
class ConditionEncoder {
 public:
  virtual ~ConditionEncoder() = default;
  /// Returns one row per annotation, and the null condition if the model has one: for captions, that of the annotation's `negative`.
  /// Differentiable in the weights. Throws ConfigError if an annotation lacks what is needed.
  virtual Condition encode(const ConditionRequest& request) const = 0;
  /// Returns the weights that are trained with the network, in a stable order; empty for most.
  virtual std::vector<Weight> weights() const { return {}; }
  /// Returns the files that it was made from; a checkpoint keeps them.
  virtual Files files() const { return {}; }

  Condition encode(const std::vector<Annotation>& annotations, at::Generator* random = nullptr) const {
    return encode(ConditionRequest{annotations, random});
  }
};

/// What an encoder is made from.
struct EncoderOrigin {
  uint64_t seed = 0;              ///< of the initial weights
  const Files* stored = nullptr;  ///< the files of a checkpoint, whose weights are copied in afterwards; null = a new model
};

/// What the rest of a model must know of its condition.
struct ConditionerTraits {
  int64_t classes = 0;        ///< number of classes that can be requested; 0 = none
  int64_t class_rows = 0;     ///< rows of the network's class embedding, with the null class; 0 = none
  int64_t context_width = 0;  ///< width of the tokens of Condition::context; 0 = none
  int64_t vector_width = 0;   ///< width of Condition::vector; 0 = none
  int64_t size_ids = 0;       ///< numbers per row of Condition::sizes; 0 = none
  bool guidance = false;      ///< gives Condition::guidance
  /// Returns the channels of Condition::image for an image and its latent. Throws ConfigError if the image does not fit.
  using ImageChannels = std::function<int64_t(const ImageShape& image, const ImageShape& latent)>;
  ImageChannels image_channels{};  ///< empty = no Condition::image
  bool masks = false;              ///< takes a mask of what to generate (ConditionRequest::masks)
  bool captions = false;           ///< images are requested in words
  bool reads_prompts = false;      ///< follows ConditionRequest::reading
  bool has_null = false;           ///< gives a null condition, so that there is an unconditional estimate
};

/// A value, made while the configuration is read.
class Conditioner {
 public:
  static constexpr std::string_view kind = "conditioner";
  virtual ~Conditioner() = default;
  virtual ConditionerTraits traits() const { return {}; }
  /// Makes the weights and reads the files.
  virtual std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin& origin) const = 0;
};

}  // namespace brume
