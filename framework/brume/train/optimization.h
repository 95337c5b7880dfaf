#pragma once
// The optimizers and moving averages of a training.
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "brume/distributed/world.h"
#include "brume/train/ema.h"

namespace brume {
class GradientSum;

/// Figures by name, for metrics.jsonl.
using Metrics = std::vector<std::pair<std::string, double>>;

/// Weights that one optimizer updates: the model, or a network that is trained with it (a discriminator).
struct TrainedModule {
  std::string name;                             ///< prefixes its metrics and its optimizer's state; empty for the model
  std::vector<Weight> weights{};                ///< those that are not trainable are kept, and not updated
  Deferred<Optimizer> optimizer{};              ///< its own; empty: the model's updates it too, and both count in one norm of the gradient
  int64_t start = 0;                            ///< step of its first update; its own optimizer counts from there
  int64_t every = 1;                            ///< updates once in so many steps, with the gradient of that step alone
  std::optional<EmaOptions> ema{};              ///< of its weights; empty: none
  std::map<std::string, Optimizer::Own> own{};  ///< by name of a weight: what it has instead of the optimizer's options
};

std::vector<std::string> names_of(const std::vector<Weight>& weights);

/// Returns what `train.groups` gives each of the model's weights; the last group that matches counts. Throws ConfigError with every
/// pattern that matches nothing, or nothing that is trained.
std::map<std::string, Optimizer::Own> own_settings(const std::vector<WeightGroupOptions>& groups, const std::vector<Weight>& weights);

/// Updates the modules of a learner, each when it is due, and averages their weights: in each process of a world the same. Sharded
/// (Rajbhandari et al. 2020, "ZeRO", stage 1), each process updates and averages a part of the weights, keeps the state of those alone, and
/// sends them to the others.
class Optimization {
 public:
  /// Makes the optimizers. The first module is the model, which has an optimizer and a moving average. `steps`: of the whole training.
  /// Weights that are trainable require a gradient afterwards. Throws std::logic_error if the model lacks one of the two. `world`: lives as
  /// long.
  Optimization(std::vector<TrainedModule> modules, int64_t steps, World& world = *world_of_one(), bool sharded = false);
  ~Optimization();

  /// Replaces the gradients by their sums over all processes.
  GradientSum& gradients() { return *gradients_; }
  /// Updates the modules that are due from the gradients of step number `step`, counted from 0, and clears all gradients. Returns false if
  /// the gradient of one is not finite: that one is left as it was.
  bool update(int64_t step);
  /// Returns true if update(step) changed the weights of the model.
  bool updated_model() const { return groups_.front().updated; }
  /// Brings the moving averages of the modules that update(step) changed up to date. `buffers`: takes over the model's weights that are not
  /// trainable.
  void average(int64_t step, bool buffers);

  /// Collects the state of all processes on rank 0 if it is sharded, until the next update: called on all processes before state(),
  /// averaged() and model_averages() are used there.
  void gather();

  /// Returns the model's grad_norm, lr and ema_decay of step number `step`, then NAME.grad_norm and NAME.lr of every other optimizer.
  Metrics figures(int64_t step) const;
  /// Returns the weights ("weights.…", "helpers.…"), averages ("ema.…") and optimizer states ("optimizer.…", "optimizers.NAME.…") that a
  /// training file keeps: those of this process, or of all after gather(). Restoring copies into these tensors.
  std::vector<Weight> state() const;
  /// Returns the moving average of the model; the first if it has several. Sharded, it has the weights that this process updates.
  const Ema& ema() const { return *averages_.front().ema; }
  /// Returns the model's weights of the first average.
  const std::vector<Weight>& averaged() const { return averages_.front().shadow(); }
  /// Returns the model's weights of all averages, in the order of EmaOptions::std.
  std::vector<std::vector<Weight>> model_averages() const;

 private:
  /// An optimizer and the modules that it updates.
  struct Group {
    std::string name;
    int64_t start = 0, every = 1;
    std::vector<Weight> weights{};      ///< trainable
    std::vector<Optimizer::Own> own{};  ///< of each of them
    std::vector<int64_t> owners{};      ///< the process that updates each of them; empty if not sharded
    std::vector<Weight> owned{};        ///< those that this process updates
    std::shared_ptr<Optimizer> optimizer{};
    double norm = 0;       ///< of the last gradient
    bool updated = false;  ///< by the last update()
    /// Returns the values that the weights are evaluated with, by name; empty if they are the weights themselves.
    std::map<std::string, Tensor> evaluated() const;
    bool due(int64_t step) const { return step >= start && (step - start) % every == 0; }
    int64_t count(int64_t step) const { return step < start ? 0 : (step - start) / every; }
  };
  struct Average {
    size_t group;
    std::unique_ptr<Ema> ema;
    size_t number;                ///< among those of its module
    bool model;                   ///< its module is the model
    std::vector<Weight> whole{};  ///< the weights of all processes, after gather()
    const std::vector<Weight>& shadow() const { return whole.empty() ? ema->shadow() : whole; }
    std::string prefix() const;  ///< in a training file
  };
  size_t add_group(const TrainedModule& module);
  /// Makes a group's optimizer, for the weights that this process updates.
  void make_optimizer(Group& group, const Deferred<Optimizer>& optimizer, int64_t steps);
  /// Returns the weights of a module that this process averages.
  std::vector<Weight> averaged_here(const std::vector<Weight>& weights) const;
  /// Returns the state that processes have parts of.
  std::vector<Weight> sharded_state() const;

  World& world_;
  bool sharded_, gathered_ = false;
  std::vector<Weight> whole_;  ///< sharded_state() of all processes, after gather()
  std::map<std::string, int64_t> owner_of_;
  std::vector<TrainedModule> modules_;
  std::vector<Group> groups_;
  std::vector<Average> averages_;
  std::unique_ptr<GradientSum> gradients_;
};

}  // namespace brume
