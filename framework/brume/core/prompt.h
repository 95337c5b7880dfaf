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

/// Returns the vectors of a word for text encoder number `encoder` of its model, which has tokens of `width`: those of its place if they
/// are as wide, else the first that are; undefined if none are.
Tensor vectors_for(const Word& word, size_t encoder, int64_t width);

/// How the weights of words change the rows of the context. e: the rows of the empty prompt.
enum class Emphasis {
  mean,        ///< weight * row, then the mean over the prompt as it was
  chunk_mean,  ///< the same for each chunk (A1111)
  empty        ///< e + weight * (row - e) (ComfyUI)
};

struct PromptReading {
  bool weights = false;           ///< (word:1.3), (word) and [word] count more or less than the rest
  bool chunks = false;            ///< a prompt longer than the context extends it chunk by chunk; false = it is cut, with a warning
  std::optional<int64_t> skip{};  ///< number of last layers of the text encoder to skip; absent = the model's own
  std::vector<Word> words{};
  Emphasis emphasis = Emphasis::mean;
  bool absolute = false;     ///< (word:1.3) is 1.3 whatever is around it, and [word] is text (ComfyUI)
  int64_t comma_tokens = 0;  ///< a chunk ends after its last comma if at most so many tokens follow that (A1111: 20)
};

}  // namespace brume
