#pragma once
// The text "parameters" that A1111's web UI writes into its pictures.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "serve/generation.h"

namespace brume::tools {

/// What an image shows and how large it is, as far as a request does not say.
struct InfotextImage {
  std::string prompt, negative;
  int64_t number = 0, steps = 0, width = 0, height = 0;
};

/// Returns the text of image `number` of a request that samples as A1111 does: the prompt, a line "Negative prompt: ...", and a line
/// "Steps: 20, Sampler: Euler a, ...". Image k has the seed of the request + k.
std::string infotext(const Generation& g, const InfotextImage& image);

/// Returns the fields of such a text by their names, "Prompt" and "Negative prompt" among them; an empty object if it is none.
nlohmann::ordered_json infotext_fields(const std::string& text);

}  // namespace brume::tools
