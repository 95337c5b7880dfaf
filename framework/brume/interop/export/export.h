#pragma once
// brume's models for other programs: what `brume export` writes. Written to a temporary name in the folder of the target and renamed, so
// that there is all of it or nothing.
#include <filesystem>
#include <string>
#include <vector>

#include "brume/interop/import/import.h"

namespace brume {

/// Writes a diffusers directory: model_index.json, and a folder per component with config.json and weights. What diffusers has no class for
/// (the encoder trained with the network, a continuous noise schedule) is said by `brume.yaml`, which holds the sections of the model as
/// they are; brume opens the directory by it and gives the same model back. Returns what other programs will not find, a line each. Throws
/// ConfigError if `folder` is there already, or the network is none that diffusers has.
std::vector<std::string> export_diffusers(const Contents& model, const std::string& source, const std::filesystem::path& folder);

/// Writes one file as CompVis' latent-diffusion and Stable Diffusion have it, and its YAML next to it.
std::vector<std::string> export_ldm(const Contents& model, const std::string& source, const std::filesystem::path& file);

/// Writes one file of a `dit` as DiT, SiT and PixArt have it, with the table of positions that they store, and a YAML of what weights do
/// not tell next to it, by which brume opens the file. Text encoders and first stage are left out, and said.
std::vector<std::string> export_dit(const Contents& model, const std::string& source, const std::filesystem::path& file);

}  // namespace brume
