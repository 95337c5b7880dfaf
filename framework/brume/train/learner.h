#pragma once
// What is trained, as the Trainer sees it: it knows batches, optimizers and files, and nothing of diffusion, classes or
// latents.
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "brume/core/model_source.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/train/loader.h"
#include "brume/train/optimization.h"
#include "brume/train/options.h"

namespace brume {
struct Word;
class OpenControl;
class Pipeline;

/// What steers the network of a learner, and what it sees of each image: a preprocessor (image/control_image.h).
struct Steering {
  std::shared_ptr<const OpenControl> control;
  std::string image;
};

/// Returns how many images one process computes at once in a step: if there is memory for that, there is for tests and sample grids in
/// such batches.
int64_t images_at_once(const TrainOptions& train);

class Learner {
 public:
  virtual ~Learner() = default;
  /// Returns what is trained: the model first, whose averaged weights become its file, then the networks that are trained with it and are
  /// no part of it (a discriminator), which are kept for resuming only.
  virtual std::vector<TrainedModule> modules() const = 0;
  /// Returns every weight of the model.
  std::vector<Weight> weights() const { return modules().front().weights; }

  struct Loss {
    Tensor loss;      ///< scalar, differentiable
    Metrics metrics;  ///< further figures of this batch
  };
  /// Returns the loss of update number `step`, counted from 0. One backward pass gives the gradients of all modules, so that what one of
  /// them must not learn from enters detached. `random` is the only randomness.
  virtual Loss loss(const Batch& batch, int64_t step, at::Generator& random) = 0;
  /// Returns true if loss() of a part of a batch needs figures of the whole batch, which it takes by mean_over_parts(). Parts that one
  /// process computes are passed twice then.
  virtual bool needs_whole(int64_t /*step*/) const { return false; }
  /// Returns what it remembers from step to step in addition to the weights, saved and restored bit for bit (restoring copies into these).
  virtual std::vector<Weight> state() const { return {}; }

  /// Returns true if it changed weights that are not trainable, which the average then takes over; called after each update of the model.
  virtual bool updated(int64_t /*step*/, at::Generator& /*random*/) { return false; }

  /// Returns figures of averaged weights (in the order of weights()) on images not trained on; empty without such images, or if `stop` says
  /// so meanwhile.
  virtual Metrics test(const std::vector<Weight>& averaged, const std::function<bool()>& stop) = 0;
  /// Makes a picture of what averaged weights can do; false if there is nothing to show.
  virtual bool preview(const std::vector<Weight>& averaged, const std::filesystem::path& file) = 0;

  /// Writes what preview() shows of the weights before the first step, for train.preview.base, into the folder of the pictures.
  virtual void keep_base(const std::vector<Weight>& /*averaged*/, const std::filesystem::path& /*folder*/) {}

  /// Returns the model whose losses it computes; null for others than diffusion models.
  virtual const Pipeline* pipeline() const { return nullptr; }
  /// Steers the network in losses and sample grids from now on.
  virtual void steer(const Steering& /*steering*/) {}
  /// Reads the captions of training images and the prompts of sample grids with these words from now on.
  virtual void teach(const std::vector<Word>& /*words*/) {}
  /// Throws ConfigError if it cannot go on; called after its state and weights were read from the training file that it is resumed from.
  virtual void restored() {}
  /// Returns the weights of the model's file, for averaged ones.
  virtual std::vector<Weight> stored(const std::vector<Weight>& averaged) const { return averaged; }
  /// Returns tensors of the shapes and types of those of stored(), with any values.
  virtual std::vector<Weight> stored_shapes(const std::vector<Weight>& averaged) const { return stored(averaged); }
  /// Writes files of averaged weights that stand next to the model's: adapters alone.
  virtual void save_parts(const std::filesystem::path& /*directory*/, const std::vector<Weight>& /*averaged*/, int64_t /*step*/) const {}

  /// Returns what the model's file, of averaged weights, says of itself, but for the step.
  virtual ModelCard card(const std::vector<Weight>& averaged) = 0;
};

/// The file of keep_base().
inline constexpr const char* base_preview = "base.png";
/// What steers the images of sample grids, in their order.
inline constexpr const char* control_preview = "control.png";

/// Returns the model as a module: with the optimizer and the moving average of `train:`.
TrainedModule model_module(std::vector<Weight> weights, const TrainOptions& train);

/// The sources of the parts of a learner.
struct LearnerOrigin {
  uint64_t seed = 0;              ///< of the initial weights
  const ModelSource& models;      ///< the models that teachers, first stages and guidances name; lives as long as the learner
  const Files* stored = nullptr;  ///< not null: the training is resumed, and these are the files it kept
  Batch examples{};               ///< the first training images, as many as a sample grid shows
};

/// Returns what sample grids are made after, if a model needs more than noise for them.
Batch examples(const Config& config, const Dataset& data);

/// Returns the training images with the labels of the model's class names. If the configuration leaves those to the data, they are the ones
/// of `stored`, the configuration that the first weights come from, if it has any: they are set in `config` and `resolved`. Throws
/// ConfigError if the names of the two are not the same.
std::shared_ptr<const Dataset> labelled(Config& config, Value& resolved, std::shared_ptr<const Dataset> data, const Value& stored);

/// Sets train.steps of `config` and `resolved` to the steps that train.epochs take, rounded up, if train.epochs is given. Throws
/// ConfigError if the data have no end.
void set_steps_of_epochs(Config& config, Value& resolved, const Dataset& data);

/// Returns the learner of a configuration: of its model, its classifier or its autoencoder. `data` are the training images; if the model's
/// class names are empty they are taken from there, into `config` and `resolved`. Throws ConfigError if the two have different classes.
std::unique_ptr<Learner> make_learner(Config& config, Value& resolved, const Compute& compute, const std::shared_ptr<const Dataset>& data,
                                      const LearnerOrigin& origin);

/// Returns the learner of each task.
std::unique_ptr<Learner> make_diffusion_learner(const Config& config, const Value& resolved, const Compute& compute, const Dataset& data,
                                                const LearnerOrigin& origin);
std::unique_ptr<Learner> make_classifier_learner(const Config& config, const Value& resolved, const Compute& compute,
                                                 const LearnerOrigin& origin);
std::unique_ptr<Learner> make_autoencoder_learner(const Config& config, const Value& resolved, const Compute& compute,
                                                  std::shared_ptr<const Dataset> data, const LearnerOrigin& origin);

}  // namespace brume
