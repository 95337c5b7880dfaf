#pragma once
// How conditioners read prompts while sampling, if not as they were trained.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "brume/core/tensor.h"

namespace brume {

/// A textual inversion (Gal et al. 2022, "An Image is Worth One Word"): a word with vectors instead of its tokens' embeddings.
struct Word {
  std::string text;
  Tensor vectors;                ///< [n, width] float32
  std::vector<Tensor> others{};  ///< [m, width] float32: of other text encoders of the same model (SDXL), which differ in width
};

struct PromptReading {
  bool weights = false;           ///< (word:1.3), (word) and [word] count more or less than the rest
  bool chunks = false;            ///< a prompt longer than the context extends it chunk by chunk; false = it is cut, with a warning
  std::optional<int64_t> skip{};  ///< number of last layers of the text encoder to skip; absent = the model's own
  std::vector<Word> words{};
};

}  // namespace brume
