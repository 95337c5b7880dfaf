#pragma once
// What the importers of diffusers' transformers share.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "brume/interop/import/import.h"
#include "brume/interop/layouts/transformer_names.h"

namespace brume {

/// Returns true if the JSON file has one of these as _class_name.
bool is_diffusers_class(const std::filesystem::path& file, const std::vector<std::string>& names);
/// Returns true if the source is a directory of such a pipeline, or of the transformer alone.
bool is_transformer_directory(const Source& source, const std::vector<std::string>& pipelines,
                              const std::vector<std::string>& transformers);

/// Reads what can be set of such a directory: `variant` alone. Throws ConfigError naming another key.
std::string variant_of(const ImportOptions& options, const char* family);
/// Returns the variant if the component has it, else "".
std::string variant_in(const std::filesystem::path& component, const std::string& variant);

/// Sets `image` and `autoencoder` of the options from the folder of a first stage, and adds its tensors. `size`: of the latents,
/// `channels`: those that the network takes. Throws ConfigError if the first stage has others.
void set_transformer_stage(Imported& model, Value& options, const std::filesystem::path& folder, const std::string& variant, int64_t size,
                           int64_t channels);

/// Returns the tensors under brume's names. Throws ConfigError naming a tensor without a place, or a part of a joined layer that is missing
/// or has another number of columns than the first. `network`: for messages.
NamedTensors renamed_layers(const NamedTensors& tensors, const LayerNames& layout, const std::string& folder, const char* network);

}  // namespace brume
