#pragma once
// Batches, optimizer, moving average, checkpoints and previews around a Learner's loss.
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "train/ema.h"
#include "train/learner.h"

namespace brume {
class Progress;

/// Trains one model, classifier or autoencoder into a run directory:
///   config.yaml           the resolved configuration
///   metrics.jsonl         one JSON object every `log_every` steps, and one every test
///   samples/step_N.png    sample grids of a model, reconstructions of an autoencoder
///   model.safetensors     the averaged weights, all that sampling needs
///   training.safetensors  everything that resuming needs, and the configuration
class Trainer {
 public:
  /// `resolved` is the configuration as read_configuration gave it. The directory must be empty or absent, unless
  /// `resume_from` names a training file, whose state is taken over bit for bit.
  /// `models`: where teachers, and the guidances of the sample grids, find their own; lives as long as the trainer.
  Trainer(const Config& config, Value resolved, std::filesystem::path directory, const std::filesystem::path& resume_from = {},
          const ModelSource& models = no_models());
  ~Trainer();

  /// Trains to the last step; `stop` is asked after every step. Returns false where it was stopped: then a checkpoint is
  /// written and the run can be resumed.
  bool run(const std::function<bool()>& stop);

  int64_t step() const { return step_; }
  std::vector<Weight> weights() const { return learner_->weights(); }
  const Compute& compute() const { return compute_; }
  const Ema& ema() const { return *ema_; }
  /// Makes a sample grid of the averaged weights; returns its path, empty where there is nothing to show.
  std::filesystem::path preview();
  void save();

 private:
  /// One update; `sums` gathers the loss and the learner's metrics.
  double train_step(Metrics& sums);
  void log(const Metrics& sums, int64_t steps, double rate);
  void test(Progress& progress, const std::function<bool()>& stop);
  void append_metrics(const Metrics& metrics);
  void restore(const std::filesystem::path& file);
  std::vector<Weight> training_state() const;

  Config config_;
  Value resolved_;
  std::filesystem::path directory_;
  Compute compute_;
  std::shared_ptr<const Dataset> data_;
  std::unique_ptr<Learner> learner_;
  std::unique_ptr<Ema> ema_;
  std::shared_ptr<Optimizer> optimizer_;
  std::unique_ptr<Loader> loader_;
  int64_t step_ = 0;
  int64_t bad_steps_ = 0;
  double norm_ = 0;
};

/// The configuration stored in a training file, for `--resume`.
Value training_configuration(const std::filesystem::path& training_file);

}  // namespace brume
