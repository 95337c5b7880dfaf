#pragma once
// Training losses with networks of their own: a discriminator, the score of a generator's images.
//
// How to write one:
//   1. Derive a final class from JointObjective with a nested `Options`, made from those options; implement `open()`.
//   2. Derive a final class from OpenObjective, which holds the networks: `loss()` is differentiable in the model and in them, and
//      `companions()` lists their weights, each with its optimizer.
//   3. One backward pass serves all. What a network must not learn from enters detached, or as a gradient (numerics/adversarial.h).
//   4. Read plugins/objectives/ddgan.cpp as an example.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "brume/config/recipe.h"
#include "brume/core/objective.h"
#include "brume/core/optimizer.h"

namespace brume {

/// A network that is trained with the model and is no part of its file.
struct Companion {
  std::string name;  ///< prefixes its metrics and its optimizer's state
  std::vector<Weight> weights;
  Deferred<Optimizer> optimizer;
};

/// An objective with its networks. It belongs to one training.
class OpenObjective : public Objective {
 public:
  bool denoises() const override { return false; }
  virtual std::vector<Companion> companions() const = 0;
  /// Returns the number of steps from one update of the model to the next: its companions are updated in each.
  virtual int64_t model_every() const { return 1; }
  /// Returns figures of the last loss, by name, for metrics.jsonl: the same names after every step.
  virtual std::vector<std::pair<std::string, double>> figures() const = 0;
};

class JointObjective : public Objective {
 public:
  /// What the rest of the configuration fixes.
  struct Context {
    Network::Context network;           ///< of the model's network
    Deferred<Network> model{};          ///< makes a network like the model's
    std::vector<Weight> weights{};      ///< of the model's network
    at::Device device = at::kCPU;       ///< of the networks
    at::ScalarType dtype = at::kFloat;  ///< that networks compute in
  };
  /// Makes the networks; `network.seed` is that of their weights. Throws ConfigError if they do not fit the model.
  virtual std::unique_ptr<OpenObjective> open(const Context& context) const = 0;
  /// Throws std::logic_error: only the opened objective has a loss.
  Tensor loss(const TrainableModel&, const Tensor&, const Condition&, Training&, at::Generator&) const final;
  bool denoises() const override { return false; }
};

}  // namespace brume
