#pragma once
// The text "parameters" (interop/infotext.h) of pictures that requests of A1111's API make.
#include <cstdint>
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

}  // namespace brume::tools
