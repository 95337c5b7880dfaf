#pragma once
// Files that are no model and add to one: LoRAs, textual inversions, adapters.
#include <string>

#include "brume/weights/tensors.h"

namespace brume {

/// What a file adds to a model.
struct Addition {
  std::string name;     ///< "LoRA"; "" if it is of no kind that is known
  std::string use;      ///< how brume takes it, with what tells it from others: rank, word
  std::string problem;  ///< why brume cannot take it; "" if it can
};

/// Returns what the tensors of the file `path` are, by their names.
Addition addition_of(const std::string& path, const NamedTensors& tensors);

}  // namespace brume
