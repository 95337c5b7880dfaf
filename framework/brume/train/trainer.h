#pragma once
// Batches, optimizer, moving average, checkpoints and previews around a Learner's loss.
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "brume/core/warnings.h"
#include "brume/files/lock.h"
#include "brume/train/learner.h"

namespace brume {
class ModelFiles;
struct BatchFigures;
class LossTrend;
class RunLog;
class World;
struct CheckpointSize;

/// How far a training is, after an update.
struct TrainProgress {
  int64_t step = 0, steps = 0;   ///< updates so far, and in all
  int64_t images = 0;            ///< of this update
  std::optional<double> loss{};  ///< moving average; nothing before the first finite loss
  int64_t skipped = 0;           ///< updates that were skipped because the loss or a gradient was not finite
};

/// Receives what a training does, on the thread of Trainer::run. All may be empty.
struct TrainCallbacks {
  std::function<bool()> stop{};                                        ///< asked after every update; true stops
  std::function<void(const TrainProgress&)> progress{};                ///< after every update
  std::function<void(int64_t step, const Metrics& figures)> tested{};  ///< figures on images that are not trained on, at checkpoints
  WarningScope::Receive warn{};
};

/// How Trainer::from_yaml and Trainer::from_file make a training.
struct TrainerOptions {
  std::filesystem::path directory;  ///< of the run
  std::filesystem::path resume{};   ///< a training.safetensors to continue; empty = a new training
  bool overwrite = false;           ///< of a new training: removes what the directory holds
  Registry* registry = nullptr;     ///< the caller's plugins, which outlive the training; null = the built-in ones
};

/// Trains one model, classifier or autoencoder into a run directory:
///   config.yaml           the resolved configuration
///   metrics.jsonl         one JSON object every `log_every` steps, and one every test
///   events.out.tfevents.brume  the same, the sample grids and the configuration for TensorBoard, if `train.log` asks for it
///   samples/step_N.png    sample grids of a model, reconstructions of an autoencoder
///   model.safetensors     the averaged weights, all that sampling needs
///   training.safetensors  everything that resuming needs, and the configuration
///   ema/step_N_std_S.safetensors   models of the power-function averages at checkpoints
///   checkpoints/step_N    both files of the checkpoints that `train.keep`, `keep_every` and `keep_best` ask for
/// The directory is locked until run() returns: a second trainer in it is refused.
class Trainer {
 public:
  /// Makes a trainer. `resolved` is the configuration as read_configuration gave it. The directory must hold no training, unless
  /// `resume_from` names a training file, whose state is taken over bit for bit; or `overwrite` says that what it holds goes, which it does
  /// once everything that the new training needs is there.
  /// `models`: the models that teachers and the guidances of the sample grids name; lives as long as the trainer.
  /// `world`: the processes that each compute a part of every batch; null = this one alone. Rank 0 writes the files. Throws ConfigError on
  /// all processes if they differ in build, configuration or initial weights.
  /// `preparing` receives how far the class images of `train.prior_preservation` are, in image steps; false stops (Interrupted).
  Trainer(const Config& config, Value resolved, std::filesystem::path directory, const std::filesystem::path& resume_from = {},
          const ModelSource& models = no_models(), bool overwrite = false, std::shared_ptr<World> world = {},
          const std::function<bool(int64_t done, int64_t count)>& preparing = {});
  ~Trainer();
  /// Makes a training of a configuration, which is checked first. Throws ConfigError.
  static std::unique_ptr<Trainer> from_yaml(const std::string& yaml, const TrainerOptions& options);
  static std::unique_ptr<Trainer> from_file(const std::filesystem::path& configuration, const TrainerOptions& options);

  /// Trains to the last step. Returns false if it was stopped: then a checkpoint is written, and the run can be resumed. An exception is
  /// thrown on after a checkpoint of the last whole step was written. A test or a sample grid that fails is a warning. If one process of a
  /// world is asked to stop, all stop after the same step. Throws WorldError if one is lost.
  bool run(const TrainCallbacks& callbacks);
  bool run(const std::function<bool()>& stop) { return run(TrainCallbacks{.stop = stop}); }

  int64_t step() const { return step_; }
  /// Returns the step of the last checkpoint that this trainer wrote, or that it was resumed from; 0 if it has none.
  int64_t saved_step() const { return saved_; }
  /// Returns the weights of the model; `trainable` is false for those that `train.freeze` names as well.
  std::vector<Weight> weights() const { return model_; }
  const Compute& compute() const { return compute_; }
  const Dataset& data() const { return *data_; }
  /// Returns the training images that could not be read and were left out (ImageFiles::skips_errors): their errors, by index. Each is
  /// warned of once.
  const std::map<int64_t, std::string>& unread() const { return unread_; }
  const Ema& ema() const { return optimization_->ema(); }
  /// Makes a sample grid of the averaged weights; returns its path, empty if there is nothing to show.
  std::filesystem::path preview();
  void save();

 private:
  /// What is gathered between two lines of metrics.jsonl.
  struct Window {
    Metrics sums;         ///< the loss, and the learner's metrics
    int64_t steps = 0;    ///< that they are of
    int64_t skipped = 0;  ///< steps whose loss or gradient was not finite, which count in no figure
    int64_t unread = 0;   ///< images that could not be read, and for which others stood in
  };
  /// A frozen weight that the network may move by a rule of its own (a codebook), and the value that it keeps.
  struct Fixed {
    Tensor weight, value;
  };
  bool run_steps(const TrainCallbacks& callbacks);
  /// Sets the device, the threads and the parts of a batch of this process.
  void divide(const std::filesystem::path& resume_from);
  /// Keeps the parts that a batch was computed in before, if the number of processes is another one now.
  void keep_parts(const std::filesystem::path& training_file);
  /// Prepares the run directory for the files that rank 0 writes.
  void open_directory(bool fresh, bool overwrite);
  void compare_processes() const;
  /// Returns the rows of a batch that this process computes.
  BatchRows rows() const;
  /// Returns true if this process is asked to stop, or its time is over.
  bool asked_to_stop(const TrainCallbacks& callbacks) const;
  /// Makes the figures of a step those of all processes, and `stop_` true if one of them is asked to stop.
  void agree(BatchFigures& figures, Window& window, const TrainCallbacks& callbacks);
  /// Writes a checkpoint by rank 0.
  void save_together();
  /// Returns true at the steps that are multiples of `every` (0 = none), and at the last.
  bool due(int64_t every) const { return step_ == config_.train->steps || (every > 0 && step_ % every == 0); }
  /// Does what a process that ended right after it had written the checkpoint of this step has left undone.
  void complete(const TrainCallbacks& callbacks);
  std::filesystem::path preview_file() const;
  /// Takes over a directory: its lock, and what killed processes left in it.
  void take_directory();
  /// Writes a checkpoint at a step that is a multiple of checkpoint_every, or the last.
  void checkpoint(const TrainCallbacks& callbacks);
  /// Runs a test or a sample grid, from which neither an error nor an interruption leaves.
  void attempt(const char* what, const TrainCallbacks& callbacks, const std::function<void()>& run);
  /// Writes a checkpoint if the last one is older and the weights are those of a whole step. Returns why that failed, or "".
  std::string save_before_leaving();
  CheckpointSize checkpoint_size() const;
  /// Makes one update; returns its loss, or nothing of a step that was skipped.
  std::optional<double> train_step(Window& window, const TrainCallbacks& callbacks);
  void note_unread(const Batch& batch, Window& window);
  /// Returns what has been gathered since the last line of metrics.jsonl as text, for a later process.
  std::string gathered(const Window& window) const;
  /// Returns what was gathered before the training was stopped.
  Window restored_window();
  /// Adds the loss of a step to the trend. Warns if that of a judged training grows instead of falling, and keeps the checkpoint of before.
  void notice_growth(double loss);
  /// Returns true on rank 0 of a training of one module: networks that play against each other have losses that rise and fall.
  bool judged() const;
  /// Keeps the last checkpoint whatever `train.keep` asks for.
  void hold_checkpoint();
  /// Holds the last checkpoint before the next one is written if the loss grows, and no longer if it fell again.
  void hold_if_loss_grows();
  /// Keeps the held checkpoint no longer, unless the training was said to diverge.
  void release_checkpoint();
  void log(const Window& window);
  void test(const TrainCallbacks& callbacks);
  void restore(const std::filesystem::path& file);
  /// Copies the weights of `train.from` into the model's, as `train.adopt` has it.
  void take_over(const StoredModel& source);
  /// Makes those of the model's weights that `train.freeze` names, or `train.train_only` does not, not trainable.
  void freeze(std::vector<Weight>& weights);
  std::vector<Weight> training_state() const;

  static std::unique_ptr<Trainer> open(Value root, const std::filesystem::path& folder, const TrainerOptions& options);

  std::shared_ptr<World> world_;
  std::chrono::steady_clock::time_point end_ = std::chrono::steady_clock::time_point::max();  ///< train.stop_after
  bool stop_ = false;                                                                         ///< a process of the world is asked to stop
  Lock lock_;                                                                                 ///< of the directory
  std::unique_ptr<Registry> registry_;                                                        ///< of a caller who has none
  std::unique_ptr<ModelFiles> models_;                                                        ///< of from_yaml and from_file
  Config config_;
  Value resolved_;
  std::filesystem::path directory_;
  Compute compute_;
  std::shared_ptr<const Dataset> data_;
  std::unique_ptr<Learner> learner_;
  std::vector<Weight> model_;  ///< weights of the model
  std::vector<Fixed> fixed_;
  std::unique_ptr<Optimization> optimization_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<RunLog> log_;
  int64_t step_ = 0;
  int64_t saved_ = 0;  ///< step of the last checkpoint
  int64_t bad_steps_ = 0;
  std::unique_ptr<LossTrend> trend_;
  int64_t held_ = 0;      ///< step of the checkpoint that is held; 0 = none
  bool several_ = false;  ///< modules are trained
  std::map<int64_t, std::string> unread_;
  bool updating_ = false;   ///< the weights are those of no whole step
  bool continues_ = false;  ///< resumed in the directory of its training file
  bool lost_ = false;       ///< the last checkpoint could not be written
};

/// Returns the configuration stored in a training file, for `--resume`. Throws ConfigError if the file is no such file, of a newer layout,
/// or damaged.
Value training_configuration(const std::filesystem::path& training_file);
/// Returns the number of updates it was written after; throws as above.
int64_t training_step(const std::filesystem::path& training_file);

}  // namespace brume
