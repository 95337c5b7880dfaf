#pragma once
// A model: its weights, its denoiser and its loss. diffusion/sampling_run.h samples from it.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "brume/core/objective.h"
#include "brume/diffusion/compute.h"
#include "brume/diffusion/options.h"
#include "brume/weights/tensors.h"

namespace brume {
namespace nn {
class Int8Layers;
}
struct PromptReading;

/// The weights of a model that is no longer trained.
struct StoredWeights {
  std::string source;                ///< names them in messages
  const NamedTensors& tensors;       ///< views of a file
  const Files& files;                ///< of a tokenizer and the like
  std::vector<std::string> loras{};  ///< added to the weights, see interop/lora_strength.h
};

/// Returns the taps of one call of the network, `taps` and what is added for these rows. input, c_noise, condition: as for
/// Network::forward.
using CallTaps = std::function<Taps(Taps taps, double sigma, const Tensor& input, const Tensor& c_noise, const Condition& condition)>;

/// Owns the parts of a model. `const` use is safe from several threads.
class Pipeline {
 public:
  /// Makes the parts of a model. `seed`: of the initial weights. `stored`: the files of a checkpoint, whose weights are copied in
  /// afterwards (the files that a first stage or a tokenizer came from are then not needed); null = a new model. `models` opens a first
  /// stage.
  Pipeline(const ModelOptions& options, const Compute& compute, uint64_t seed = 0, const Files* stored = nullptr,
           const ModelSource& models = no_models());

  /// Makes a model that is complete and no longer trained: weights that layers pack stay views of the file, the others are converted once
  /// to the compute dtype. Throws ConfigError as load_weights and merged_loras do.
  Pipeline(const ModelOptions& options, const Compute& compute, const StoredWeights& stored, const ModelSource& models = no_models());

  /// Returns the model's denoiser, unguided, which lives as long as the pipeline. `steps`: the levels that nearest_step rounds. Throws
  /// ConfigError if `taps` name a block that the network does not have. `call_taps`: makes those of each call; empty = `taps` alone.
  std::shared_ptr<const Denoiser> denoiser(TimestepRounding rounding = TimestepRounding::exact, std::vector<double> steps = {},
                                           Taps taps = {}, CallTaps call_taps = {}) const;

  /// Training images of a batch.
  struct Examples {
    const Tensor& images;  ///< [B, C, H, W] in [-1, 1], or the moments of as many (Autoencoder::encode_moments)
    const std::vector<Annotation>& annotations;
    bool encoded = false;                    ///< moments
    const PromptReading* reading = nullptr;  ///< of the captions; null = as the model reads them
    Tensor moments{};                        ///< of the images, if they are known
  };
  /// Returns the training loss of a batch; differentiable. `random` is the only source of random numbers. `taps`: of every call of the
  /// network; throws ConfigError if they name a block that it does not have. `call_taps`: as for denoiser(), of the sigma of the first row.
  Tensor loss(const Objective& objective, const Examples& batch, Training& training, at::Generator& random, const Taps& taps = {},
              const CallTaps& call_taps = {}) const;

  const Autoencoder& autoencoder() const { return *autoencoder_; }
  const Network& network() const { return *network_; }
  const ConditionEncoder& encoder() const { return *encoder_; }
  /// Returns one row per annotation, on the model's device; nothing is dropped. `reading`: of captions; null = as the model was trained.
  Condition condition(const std::vector<Annotation>& annotations, const PromptReading* reading = nullptr) const;

  /// Returns all weights of the model, "network.…", "conditioner.…" and "autoencoder.…".
  std::vector<Weight> weights() const;
  /// Returns the files it was made from, which a checkpoint stores.
  Files files() const { return encoder_->files(); }
  /// Casts the weights to the compute dtype, except those that layers pack: for a model that is no longer trained.
  void freeze();

  /// Returns the layers of the network that multiply eight-bit integers, unless an nn::Int8Scope of the caller says otherwise; null if the
  /// precision is another, or the model is trained.
  const std::shared_ptr<nn::Int8Layers>& int8_layers() const { return int8_; }

  const ModelOptions& options() const { return options_; }
  const Compute& compute() const { return compute_; }
  /// Returns true if the network receives an image (SampleRequest::image) concatenated to its input.
  bool concat_image() const;
  ImageShape latent() const { return autoencoder_->latent(options_.image); }
  /// Returns true if the model needs no checkpoint.
  bool weightless() const { return weights().empty(); }

 private:
  void take(const StoredWeights& stored);
  /// Returns true if a weight keeps its dtype because layers compute from a packed copy of it.
  bool stays(const Weight& w) const;
  class NetworkDenoiser;
  class Trainable;
  /// Returns c_noise at sigma.
  double c_noise(double sigma, TimestepRounding rounding) const;
  /// Returns F and the variance, in the dtype `as`.
  TrainableModel::Prediction call(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition, at::Generator* dropout,
                                  at::ScalarType as, TimestepRounding rounding = TimestepRounding::exact, const Taps& taps = {},
                                  const CallTaps& call_taps = {}) const;

  ModelOptions options_;
  Compute compute_;
  std::shared_ptr<Autoencoder> autoencoder_;
  std::shared_ptr<Network> network_;
  std::shared_ptr<const ConditionEncoder> encoder_;
  std::shared_ptr<nn::Int8Layers> int8_;
};

}  // namespace brume
