#pragma once
// Noise of a batch whose images belong to several runs.
#include <memory>
#include <vector>

#include "brume/core/noise.h"

namespace brume {

/// Which image of which run: image `number` of the run with this seed.
struct ImageOfRun {
  uint64_t seed = 0;
  int64_t number = 0;
};

/// Draws row i from rows[i], each of which is the noise of one image. Throws std::logic_error for a batch of more rows.
std::unique_ptr<Noise> noise_by_rows(std::vector<std::unique_ptr<Noise>> rows);

}  // namespace brume
