#pragma once
// The text encoders of a diffusers directory, with their tokenizers.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "brume/config/value.h"
#include "brume/core/files.h"
#include "brume/weights/tensors.h"

namespace brume {

/// Text encoders in brume's words.
struct DiffusersText {
  Value options;  ///< of brume's conditioner
  NamedTensors tensors;
  Files files;               ///< the tokenizers
  int64_t width = 768;       ///< of the tokens
  int64_t vector_width = 0;  ///< of the pooled vector; 0 = none
  std::vector<std::string> losses;
};

/// Returns the variant of the weights of a component's folder.
using VariantOf = std::function<std::string(const std::filesystem::path& component)>;

/// Reads CLIPTextModel and CLIPTokenizer from "text_encoder" and "tokenizer" in the folder of a pipeline.
DiffusersText read_diffusers_text(const std::filesystem::path& folder, const VariantOf& variant);

/// Reads one CLIP encoder: "text_encoder" and "tokenizer", or those with `ending` ("_2"). With `pooled` its projection is kept.
DiffusersText read_clip_encoder(const std::filesystem::path& folder, const std::string& ending, const VariantOf& variant, bool pooled);

/// Reads the encoders of SDXL as one `joint_text`: "text_encoder", which the refiner lacks, and "text_encoder_2", which gives the pooled
/// vector. `zeros`: force_zeros_for_empty_prompt.
DiffusersText read_diffusers_xl_text(const std::filesystem::path& folder, const VariantOf& variant, bool zeros);

}  // namespace brume
