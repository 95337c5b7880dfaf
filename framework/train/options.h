#pragma once
// The section `train:`, and the whole configuration.
#include <optional>

#include "config/registry.h"
#include "core/objective.h"
#include "core/optimizer.h"
#include "diffusion/compute.h"
#include "diffusion/options.h"

namespace brume {

struct EmaOptions {
  enum class Warmup { none, ratio, power };
  double decay = 0.9999;
  Warmup warmup = Warmup::ratio;
  double inv_gamma = 1, power = 2.0 / 3;
  void declare(Fields& f);
};

struct PreviewOptions {
  int64_t every = 1000, count = 16, columns = 0, steps = 20;
  uint64_t seed = 0;
  void declare(Fields& f);
};

struct TrainOptions {
  Deferred<Dataset> data;
  std::shared_ptr<const Objective> objective;
  Deferred<Optimizer> optimizer;
  int64_t batch = 64, steps = 10000, seed = 0;
  EmaOptions ema;
  PreviewOptions preview;
  int64_t log_every = 50, checkpoint_every = 1000;
  void declare(Fields& f);
};

/// A configuration file.
struct Config {
  ModelOptions model;
  std::optional<TrainOptions> train;
  SampleOptions sample;
  ComputeOptions compute;
  std::vector<std::string> plugins;
  void declare(Fields& f);
  /// Mistakes between the parts, found without touching data or weights.
  void check() const;
};

/// Reads and checks a whole configuration. `resolved` receives every key with the value in force. Libraries named under
/// `plugins:` are loaded first.
Config read_configuration(Registry& registry, const Value& root, Value* resolved = nullptr);

}  // namespace brume
