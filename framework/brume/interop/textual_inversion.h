#pragma once
// Textual inversions (Gal et al. 2022) from their files: diffusers' learned_embeds ({word: vector}), those of the first program and of the
// web UIs (string_to_param, emb_params).
#include <map>
#include <string>
#include <vector>

#include "brume/core/prompt.h"

namespace brume {

/// Reads a word and its vectors. `asked`: FILE, or FILE:WORD with the word that is to stand for it; else that of the file, else the file's
/// name without its ending. A file of SDXL has the vectors of both encoders, clip_l and clip_g. Throws ConfigError if the file holds no
/// vectors.
Word read_embedding(const std::string& asked);
/// Writes what read_embedding() reads: the vectors by the word, or those of both encoders of SDXL by clip_l and clip_g, with metadata.
/// Throws ConfigError if the file cannot be written.
void write_embedding(const std::string& path, const Word& word, std::map<std::string, std::string> metadata);
/// Reads several. Throws ConfigError if two have the same word.
std::vector<Word> read_embeddings(const std::vector<std::string>& asked);

/// Returns a warning for each of the embeddings `asked` whose word no prompt holds, with what may have been meant: the word in another
/// case, or the file's name. `name` is what the messages call the list.
std::vector<std::string> warnings_of_words(const std::vector<std::string>& asked, const std::vector<std::string>& prompts,
                                           const std::string& name);

}  // namespace brume
