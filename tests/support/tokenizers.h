#pragma once
// Small tokenizers, made when first asked for.
#include <string>
#include <vector>

#include "brume/core/files.h"

namespace brume::test {

/// Captions of one or two coloured shapes.
std::vector<std::string> shape_captions();
/// "tokenizer.model", trained on them, and "clip/vocab.json" with "clip/merges.txt". Without the first if sentencepiece is missing.
const Files& small_tokenizers();

}  // namespace brume::test
