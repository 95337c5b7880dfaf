#pragma once
// Snapshots of the power-function averages of a training, RUN/ema/step_N_std_S.safetensors, each a whole model; and averages of other
// lengths made of them (Karras et al. 2024, sec. 3.2).
#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "brume/diffusion/checkpoint.h"
#include "brume/train/ema.h"

namespace brume {

/// Writes a snapshot of each average at the step of the card.
void save_snapshots(const std::filesystem::path& run, const EmaOptions& options, const std::vector<std::vector<Weight>>& averages,
                    const ModelCard& card);
/// Removes the snapshots of a run, and nothing else.
void remove_snapshots(const std::filesystem::path& run);

/// A model with the average of another length.
struct Reconstruction {
  std::vector<Weight> weights;
  ModelCard card;
  int64_t step = 0;      ///< that the average ends at
  size_t snapshots = 0;  ///< that it is made of
};
/// Returns the average of length `std` at `step` (absent: that of the last snapshots), from the snapshots up to there. Throws ConfigError
/// if no snapshot is found, or if they are of different models.
Reconstruction reconstruct_average(const std::filesystem::path& run, double std, std::optional<int64_t> step);

}  // namespace brume
