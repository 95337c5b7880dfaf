#pragma once
// The checkpoints of a run directory: which are kept, and whether the disk has room for them.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "brume/files/lock.h"
#include "brume/train/options.h"

namespace brume {

/// Returns a lock on a run directory. Throws ConfigError if another training holds it.
Lock lock_run(const std::filesystem::path& directory);

/// Removes the files that killed processes left half written in a run directory, its samples and its checkpoints.
void clean_run(const std::filesystem::path& directory);

/// Returns RUN for RUN/training.safetensors and for RUN/checkpoints/step_000100/training.safetensors.
std::filesystem::path run_of(const std::filesystem::path& training_file);

/// The figure that tells the best checkpoint.
struct BestBy {
  std::string figure;   ///< its name in metrics.jsonl
  bool largest = true;  ///< false: the smallest is the best
};
/// Reads "max test_accuracy" or "min test_loss". Throws ConfigError for any other text.
BestBy best_by(const std::string& text);

/// Returns the names of the adapters, words and controls that stand next to the model in a folder.
std::vector<std::string> parts_in(const std::filesystem::path& folder);
/// Returns true if the checkpoint of `step` is kept in `directory`.
bool is_kept(const std::filesystem::path& directory, int64_t step);
/// Keeps the model.safetensors and training.safetensors of `directory`, and the adapters, words and controls next to them, in
/// checkpoints/step_N as well: as links, which take no room.
void keep_checkpoint(const std::filesystem::path& directory, int64_t step);
/// Keeps those of `step`, the last that was written, whatever `keep` asks for later.
void spare_checkpoint(const std::filesystem::path& directory, int64_t step);
/// Removes a checkpoint that spare_checkpoint() kept; one that was kept already is as before.
void prune_spared(const std::filesystem::path& directory, int64_t step);
/// Removes the kept checkpoints up to `step` that `keep` does not ask for. Warns if no line of metrics.jsonl has the figure of `keep.best`.
void prune_checkpoints(const std::filesystem::path& directory, int64_t step, const KeepOptions& keep);
/// Removes every kept checkpoint.
void remove_checkpoints(const std::filesystem::path& directory);

/// Bytes of the two files of a checkpoint.
struct CheckpointSize {
  uint64_t model = 0, training = 0;
};
/// Throws ConfigError if the disk has no room for a checkpoint, or if a file is larger than the limit of the process (ulimit -f). Warns if
/// it has no room for all that are kept from `step` on. `directory` need not exist.
void check_room(const std::filesystem::path& directory, const CheckpointSize& size, const TrainOptions& options, int64_t step);

}  // namespace brume
