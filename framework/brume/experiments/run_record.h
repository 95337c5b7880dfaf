#pragma once
// What a run directory says of itself, read without its weights.
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace brume {

/// A figure at the last of its steps, and at the best.
struct RunFigure {
  double last = 0, best = 0;
};

/// A judged set of a JSON file that `brume evaluate` or `brume likelihood` wrote into the run directory.
struct Evaluation {
  std::string file, set;             ///< "evaluate.json", "cfg 2"
  int64_t steps = 0;                 ///< of sampling; 0 if unknown
  std::optional<double> scale = {};  ///< of classifier-free guidance
  std::string sampler = {};          ///< "" if unknown
  std::map<std::string, double> figures = {};
};

enum class RunState {
  done,          ///< trained to its last step
  stopped,       ///< has a checkpoint of an earlier step
  half_written,  ///< has no checkpoint, or a file that cannot be read
  other_version  ///< a file of another version of brume
};
const char* text_of(RunState state);

struct RunRecord {
  std::string name;  ///< the path below the directory that was searched
  RunState state = RunState::half_written;
  std::string note = {};                                  ///< why it is half written or of another version
  std::map<std::string, std::string> configuration = {};  ///< scalars of config.yaml by path
  int64_t step = 0, steps = 0;                            ///< updates so far, and in all
  std::map<std::string, RunFigure> figures = {};          ///< of metrics.jsonl and of the evaluations
  std::vector<Evaluation> evaluations = {};
};

/// Returns true for figures of the machine, which no two runs have in common: images_per_second, data_share, memory_mb, seconds.
bool of_machine(const std::string& figure);
/// Returns true if the larger of two is the better: accuracy, precision, recall, density, coverage, scores, PSNR and SSIM.
bool larger_is_better(const std::string& figure);

/// Returns true if a directory is one of a training: it has config.yaml, metrics.jsonl or training.safetensors.
bool is_run(const std::filesystem::path& directory);
/// Returns the run directories in `directory`, or itself if it is one, sorted. Looks in no run directory for others.
std::vector<std::filesystem::path> find_runs(const std::filesystem::path& directory);

/// Reads a run directory. A file that is missing, damaged or of another version is no error: the state and the note say so.
RunRecord read_run(const std::filesystem::path& directory, const std::string& name);

/// Returns a record as JSON.
std::string record_text(const RunRecord& record);

}  // namespace brume
