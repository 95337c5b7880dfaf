#pragma once
// The first vectors of a word that a textual inversion adds.
#include <string>
#include <vector>

#include "brume/core/adapter.h"
#include "brume/core/files.h"
#include "brume/core/prompt.h"

namespace brume {

/// Returns a word with the vectors of its initial tokens, by the table of each of CLIP's text encoders among `weights` (Word::others: of
/// those after the first) and the tokenizers in `files`. `path` names the adapter in messages. Throws ConfigError if the model has no such
/// encoder or more than two, if the word is empty or is a token of the model, or if `init` has no token.
Word new_word(const NewWord& wanted, const std::vector<Weight>& weights, const Files& files, const std::string& path);

/// Returns the three tokens of the model that each vector of a word is nearest to, with the cosine of the angle between them: "fog 0.91,
/// mist 0.74, grey 0.60; red 0.88, …"; of each text encoder, with | between. `weights` and `files` are those that new_word() took.
std::string nearest_words(const Word& word, const std::vector<Weight>& weights, const Files& files);

}  // namespace brume
