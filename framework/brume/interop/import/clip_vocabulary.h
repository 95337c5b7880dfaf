#pragma once
#include <string>
#include <vector>

#include "brume/core/files.h"
#include "brume/weights/tensors.h"

namespace brume {

/// CLIP's token embedding may have more rows than "tokenizer/vocab.json" in `files` has tokens: words that were taught to a model and
/// stand in a file of their own, or rows that fill up to a round number. No prompt reaches them; they are cut off, and told.
void cut_token_rows(NamedTensors& tensors, const Files& files, std::vector<std::string>& losses);

}  // namespace brume
