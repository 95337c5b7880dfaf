#pragma once
// The section `sweep:` of a configuration: which runs it stands for.
//
//   sweep:
//     grid: {train.optimizer.lr: [1.0e-3, 3.0e-4], model.parameterization: [v, eps]}    every combination
//     zip: {model.network.channels: [32, 64], train.batch: [64, 32]}                    the first of each, the second of each, ...
//     random: {count: 4, seed: 0, ranges: {train.ema.decay: {from: 0.99, to: 0.9999, scale: log}}}
//     repeat: 3                                                                         seeds: train.seed, + 1, + 2
//     commands: ["evaluate {run}/model.safetensors --metric fid ..."]                   after each run
#include <filesystem>
#include <string>
#include <vector>

#include "brume/config/registry.h"
#include "brume/config/value.h"

namespace brume {

/// One run of a sweep.
struct SweepRun {
  std::string name;                   ///< by what differs: "lr=0.001,seed=1"
  std::vector<std::string> settings;  ///< as `--set` takes them: "train.optimizer.lr=0.001"
  Value root;                         ///< the configuration with these settings, without `sweep:`
};

struct Sweep {
  std::vector<SweepRun> runs;                      ///< in the order of grid, zip, random and repeat; the last varies fastest
  std::vector<std::vector<std::string>> commands;  ///< words, the first being a command of brume
};

/// Expands the sweep of a configuration. Throws ConfigError with every mistake of the section, and if two runs have one name.
Sweep expand_sweep(const Value& root);

/// Reads the configuration of every run. Throws ConfigError with every mistake of all runs, each once, and if two runs have the same
/// configuration. Returns their resolved configurations. `folder`: of the file.
std::vector<Value> check_runs(Registry& registry, const Sweep& sweep, const std::filesystem::path& folder);

}  // namespace brume
