#pragma once
// CLIP's tokenizer as transformers keeps it in a folder.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "brume/core/files.h"
#include "brume/weights/tensors.h"

namespace brume {

/// Returns "tokenizer/vocab.json" and "tokenizer/merges.txt" of a folder, or out of its tokenizer.json; and "tokenizer/added_tokens.json"
/// {word: number}, if training added words to those of the vocabulary (added_tokens.json, added_tokens_decoder of tokenizer_config.json,
/// added_tokens of tokenizer.json). Throws ConfigError.
Files read_clip_vocabulary(const std::filesystem::path& folder);

/// Returns the number of a token, added ones included.
std::optional<int64_t> token_number(const Files& files, const std::string& token);

/// Cuts off rows of CLIP's token embedding that no token of `files` has, as those that fill up to a round number, and lists them in
/// `losses`. Takes added tokens without a row out of `files`, and warns of them.
void fit_token_rows(NamedTensors& tensors, Files& files, std::vector<std::string>& losses);

}  // namespace brume
