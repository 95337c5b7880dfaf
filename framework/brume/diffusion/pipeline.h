#pragma once
// A model and what can be done with it.
#include <functional>
#include <memory>
#include <vector>

#include "brume/core/objective.h"
#include "brume/diffusion/compute.h"
#include "brume/diffusion/options.h"
#include "brume/weights/tensors.h"

namespace brume {

/// What is asked of a run.
struct SampleRequest {
  std::vector<Annotation> images;  ///< one an image: what it is to be
  int64_t first = 0;               ///< number of the first image: where a long run is asked for piece by piece
  uint64_t seed = 0;
  int64_t batch = 16;                        ///< images at once
  Tensor initial_noise;                      ///< [count, C, H, W] N(0, 1), instead of the seed's; undefined = the seed's
  const ModelSource* models = &no_models();  ///< where guidances find their own models

  int64_t height = 0, width = 0;  ///< of the images; 0 = as the model was trained

  Tensor image;         ///< [1 or count, C, H, W] in [-1, 1] to start from, instead of noise alone; undefined = none
  double strength = 1;  ///< share of the steps that is run on it, the last ones, in (0, 1]
  Tensor mask;          ///< [1 or count, 1, H, W] in [0, 1], 1 = to be made anew: for the guidance `inpaint`; needs an image
  /// Called once a step of a batch, before x moves on: `first` is the index of the batch's first image. False cancels.
  std::function<bool(int64_t first, const Step&)> observer;
  /// Called with what a batch has come to, [B, C, H, W] in the network's frame, before it is decoded.
  std::function<void(const Tensor& x)> ended;
  /// Called with the images of a batch, [B, C, H, W] in [-1, 1] on the host, as soon as they are there: `first` as above.
  std::function<void(int64_t first, const Tensor& images)> made;
};

/// Owns the parts of a model. `const` use is safe from several threads.
class Pipeline {
 public:
  /// `seed` is of the initial weights. `stored`, where not null: they are copied in from a checkpoint afterwards, which holds these
  /// files; those that a first stage or a tokenizer came from need not be there. `models`: where a first stage is opened.
  Pipeline(const ModelOptions& options, const Compute& compute, uint64_t seed = 0, const Files* stored = nullptr,
           const ModelSource& models = no_models());

  /// Images [count, C, H, W] in [-1, 1] on the host. Image i depends on (seed, first + i) and its annotation only.
  Tensor sample(const SampleRequest& request, const SampleOptions& options) const;
  /// The denoiser of this model, unguided. It lives as long as the pipeline. `steps`: the levels that nearest_step is about.
  std::shared_ptr<const Denoiser> denoiser(TimestepRounding rounding = TimestepRounding::exact, std::vector<double> steps = {}) const;
  /// The denoiser with its guidances, which find their own models in `models`. Throws ConfigError where one cannot be had.
  std::shared_ptr<const Denoiser> guided(const SampleOptions& options, const ModelSource& models) const;
  /// The names of the classes an image can be asked to be: the model's, or those that a guidance knows; numbers where they have
  /// none. Empty where there are no classes.
  std::vector<std::string> classes(const SampleOptions& options, const ModelSource& models) const;

  /// What a model learns from.
  struct Examples {
    const Tensor& images;  ///< [B, C, H, W] in [-1, 1], or the moments of as many (Autoencoder::encode_moments)
    const std::vector<Annotation>& annotations;
    bool encoded = false;  ///< moments
  };
  /// The training loss of a batch; differentiable. `random` is the only randomness.
  Tensor loss(const Objective& objective, const Examples& batch, Training& training, at::Generator& random) const;

  const Autoencoder& autoencoder() const { return *autoencoder_; }
  /// One row an annotation, where the model computes; nothing dropped.
  Condition condition(const std::vector<Annotation>& annotations) const;

  /// All weights of the model, "network.…", "conditioner.…" and "autoencoder.…".
  std::vector<Weight> weights() const;
  /// Takes the weights of a checkpoint, for a model that is not trained any more: those that will be packed stay as they lie in the file,
  /// the others are converted once, to the compute dtype; freeze() has nothing left to do. Throws ConfigError as load_weights does;
  /// `source` names them there.
  void take(const std::string& source, const NamedTensors& tensors);
  /// The files it was made from, which a checkpoint keeps.
  Files files() const { return encoder_->files(); }
  /// Casts the weights to the compute dtype, once, but for those that will be packed: for a model that is not trained any more.
  void freeze();

  const ModelOptions& options() const { return options_; }
  const Compute& compute() const { return compute_; }
  /// True where it makes images out of others, which SampleRequest::image gives: they are told to the network, not begun from, unless a
  /// strength below 1 says so.
  bool concat_image() const;
  ImageShape latent() const { return autoencoder_->latent(options_.image); }
  /// True where the model can be used as it is, without a checkpoint.
  bool weightless() const { return weights().empty(); }

 private:
  /// Whether a weight keeps its dtype, because layers compute from a packed copy of it.
  bool stays(const Weight& w) const;
  class NetworkDenoiser;
  class Trainable;
  struct Start;
  ImageShape image_of(const SampleRequest& request) const;
  void check(const SampleRequest& request, const SampleOptions& options) const;
  class FromNoise;
  struct Part;
  Condition condition_of(const SampleRequest& request, const Start& start, const Part& part) const;
  std::shared_ptr<const Denoiser> guided(const SampleOptions& options, const ModelSource& models, const ImageShape& latent) const;
  Start start_of(const SampleRequest& request, std::vector<double> sigmas) const;
  double start_std(double sigma, StartStd spread) const;
  Tensor initial(const Start& start, const Tensor& noise, const Part& part, StartStd spread) const;
  /// The network's c_noise at sigma.
  double c_noise(double sigma, TimestepRounding rounding) const;
  /// F and the variance, in the dtype `as`.
  TrainableModel::Prediction call(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition, at::Generator* dropout,
                                  at::ScalarType as, TimestepRounding rounding = TimestepRounding::exact) const;

  ModelOptions options_;
  Compute compute_;
  std::shared_ptr<Autoencoder> autoencoder_;
  std::shared_ptr<Network> network_;
  std::shared_ptr<const ConditionEncoder> encoder_;
};

}  // namespace brume
