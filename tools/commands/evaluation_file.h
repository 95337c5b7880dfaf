#pragma once
// The JSON that `brume evaluate --metric fid,kid --json FILE` writes: under what conditions sets were judged, and their figures.
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "brume/core/set_metric.h"

namespace brume::tools {

/// A judged set: its figures, and what they are of.
struct EvaluatedSet {
  std::string name, hash;
  int64_t images = 0, steps = 0;  ///< 0 steps: images of files
  std::string sampler{};          ///< as --sampler named it; empty = the model's own
  std::optional<double> cfg{};    ///< as --cfg named it
  int64_t calls = 0;              ///< of the denoiser, with --calls; 0 = not counted
  std::vector<std::string> notes{};
  std::vector<SetMetric::Figure> figures{};
  /// Returns true if both are sampled the same way.
  bool same_sampling(const EvaluatedSet& other) const { return steps == other.steps && sampler == other.sampler && cfg == other.cfg; }
};

struct EvaluationFile {
  nlohmann::ordered_json conditions;  ///< all of the file but the sets
  std::vector<EvaluatedSet> sets;
};

void write_evaluation(const std::string& path, const EvaluationFile& file);
/// Returns nothing if there is no such file, or if it is none of this kind.
std::optional<EvaluationFile> find_evaluation(const std::string& path);

/// Returns the sets that `path` holds already, of an evaluation that was interrupted; none if there is no file. Throws ConfigError naming
/// both values if its sets were judged under other conditions.
std::vector<EvaluatedSet> finished_sets(const std::string& path, const nlohmann::ordered_json& conditions);

/// Returns the sets of several files, with the files' names before theirs. Throws ConfigError naming both values if the sets cannot be
/// compared: other features, weights, resizing, precision, reference, number of images or metrics.
std::vector<EvaluatedSet> comparable_sets(const std::vector<std::string>& paths);

/// Prints one line per set.
void print_table(const std::vector<EvaluatedSet>& sets);

}  // namespace brume::tools
