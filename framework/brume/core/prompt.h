#pragma once
// How the words of a prompt are read while sampling, by conditioners that can do otherwise than as they were trained.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "brume/core/tensor.h"

namespace brume {

/// A textual inversion (Gal et al. 2022, "An Image is Worth One Word"): a word that stands for vectors in the place of its tokens'
/// embeddings.
struct Word {
  std::string text;
  Tensor vectors;  ///< [n, width] float32
};

struct PromptReading {
  bool weights = false;           ///< (word:1.3), (word) and [word] count more or less than the rest
  bool chunks = false;            ///< what is longer than the context becomes more context, chunk by chunk; else it is cut, with a warning
  std::optional<int64_t> skip{};  ///< last layers of the text encoder left out; absent = as the model has it
  std::vector<Word> words{};
};

}  // namespace brume
