#pragma once
// A text encoder of a diffusers directory, with its tokenizer.
#include <string>

#include "brume/core/files.h"
#include "brume/interop/export/partial.h"
#include "brume/interop/layouts/conditioning.h"

namespace brume {

/// Writes the folders "text_encoder" and "tokenizer", with the encoder's ending, of a clip_text. `files`: those of the model, among them
/// the tokenizer. Throws ConfigError naming `source` if transformers has no name for something.
void write_diffusers_text(const Partial& out, const TextEncoderPlace& encoder, const NamedTensors& tensors, const Files& files,
                          const std::string& source);

}  // namespace brume
