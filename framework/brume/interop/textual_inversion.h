#pragma once
// Textual inversions (Gal et al. 2022) from their files: diffusers' learned_embeds ({word: vector}), and those of the web UIs
// (string_to_param, emb_params).
#include <string>

#include "brume/core/prompt.h"

namespace brume {

/// `asked`: FILE, or FILE:WORD with the word that is to stand for it; else that of the file, else the file's name without its ending.
/// Throws ConfigError where the file holds no vectors, or those of several encoders.
Word read_embedding(const std::string& asked);

}  // namespace brume
