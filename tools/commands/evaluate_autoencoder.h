#pragma once
#include <string>

#include "program/program.h"

namespace brume::tools {

/// `brume evaluate` of a first stage.
struct AutoencoderEvaluation {
  std::string source, data, json;
  int64_t limit = 0, batch = 64;
  int64_t bits = 8;  ///< that a value of a latent counts for
  Overrides overrides;
};
int evaluate_autoencoder(Program& program, const AutoencoderEvaluation& asked);

}  // namespace brume::tools
