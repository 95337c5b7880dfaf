#pragma once
// T5's encoder (transformers' T5EncoderModel) with its tokenizer.
#include <cstdint>
#include <filesystem>
#include <string>

#include "brume/config/value.h"
#include "brume/core/files.h"
#include "brume/weights/tensors.h"

namespace brume {

/// The encoder as a conditioner `t5`.
struct T5Text {
  Value options;
  NamedTensors tensors;  ///< under brume's names, which are transformers'
  Files files;           ///< spiece.model
  int64_t width = 0;     ///< of the tokens
};

/// How a family takes T5's tokens.
struct T5Use {
  int64_t length = 256;  ///< tokens of a prompt
  bool mask = false;     ///< the padding is hidden
};

/// Reads config.json and the weights of `encoder`, and spiece.model of `tokenizer` (folders). Throws ConfigError naming what is missing,
/// and what of config.json brume's encoder cannot be.
T5Text read_t5(const std::filesystem::path& encoder, const std::filesystem::path& tokenizer, const std::string& variant, const T5Use& use);

/// Returns the options of an encoder that is not there: it can be imported, and named before the model is opened.
Value missing_t5(int64_t width, const T5Use& use);

/// Returns the tensors of an encoder without those of the decoder. `tensors` have transformers' names.
NamedTensors t5_encoder_tensors(NamedTensors tensors);

}  // namespace brume
