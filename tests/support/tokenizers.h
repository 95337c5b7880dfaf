#pragma once
// Small tokenizers, made when first asked for.
#include <string>
#include <vector>

#include "brume/core/files.h"
#include "support/tempdir.h"

namespace brume::test {

/// Captions of one or two coloured shapes.
std::vector<std::string> shape_captions();
/// "tokenizer.model", trained on them, and "clip/vocab.json" with "clip/merges.txt". Without the first if sentencepiece is missing.
const Files& small_tokenizers();
/// Writes the vocab.json and merges.txt of CLIP into a folder within `folder`.
void write_clip_tokenizer(const TempFolder& folder, const std::string& inside);

}  // namespace brume::test
