#pragma once
// What the importers of Stable Diffusion 3 and FLUX share, single files and directories: the architecture, the text, and how they sample.
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "brume/interop/import/import.h"
#include "brume/interop/layouts/transformer_names.h"

namespace brume {

/// The network, as brume's mmdit.
struct MmditNetwork {
  bool flux = false;
  bool guidance = false;  ///< it takes the guidance scale
  int64_t width = 0, heads = 1, depth = 0, single_depth = 0, patch = 2, in = 16, out = 16;
  int64_t words = 4096, pooled = 2048;  ///< channels of the tokens and of the pooled vector
  int64_t position_size = 0;            ///< of SD 3
  int64_t size = 128;                   ///< height and width of the latents
  double mlp_ratio = 4;
  bool qk_norm = false;
  std::vector<int64_t> dual_blocks{}, rotary_axes{};
  Value options() const;
  FluxPatches patches() const { return {in, out, patch}; }
};

/// What can be set of such an import.
struct MmditSettings {
  std::string variant{};
  std::filesystem::path pipeline{};  ///< a diffusers directory whose text encoders and first stage are taken
  int64_t length = 0;                ///< of T5's tokens; 0 = the family's
};

/// Adds text encoders and first stage of the diffusers directory `folder` to the model and its options; without one (an empty path), says
/// what is missing. Throws ConfigError if their widths are not those of the network.
void add_mmdit_parts(Imported& model, Value& options, const MmditNetwork& network, const std::filesystem::path& folder,
                     const MmditSettings& settings);

/// Sets noise, parameterization and the section `sample`; `scheduler`: a scheduler_config.json, or an empty path.
void set_mmdit_sampling(Imported& model, Value& options, const MmditNetwork& network, const std::filesystem::path& scheduler);

}  // namespace brume
