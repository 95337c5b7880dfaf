#pragma once
// The modules of a latent diffusion model (Rombach et al. 2022) as CompVis' latent-diffusion, Stable Diffusion and what follows them keep
// them in one file: the U-Net ("model.diffusion_model."), the first stage ("first_stage_model.") and the encoder of the condition
// ("cond_stage_model."). brume's U-Net and first stages have CompVis' names, so a module's tensors stay as they are, and its options are
// read from their shapes. What shapes do not tell (how many heads) is asked for.
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/value.h"
#include "brume/weights/tensors.h"

namespace brume {

/// The tensors of a module under their names within it.
class ModuleTensors {
 public:
  ModuleTensors() = default;
  ModuleTensors(const NamedTensors& all, const std::string& prefix);

  bool empty() const { return by_name_.empty(); }
  bool has(const std::string& name) const { return by_name_.contains(name); }
  /// Returns true if there is a tensor below: "down.0." for "down.0.block.0.conv1.weight".
  bool below(const std::string& prefix) const;
  /// Returns the size of a tensor along a dimension; throws ConfigError if it is not there, or has fewer.
  int64_t size(const std::string& name, int64_t dim) const;
  /// Returns how many numbers from `first` on there are something below of: count("down.") for "down.0.", "down.1.".
  int64_t count(const std::string& prefix, int64_t first = 0) const;
  const std::map<std::string, at::Tensor, std::less<>>& by_name() const { return by_name_; }

 private:
  std::string prefix_;
  std::map<std::string, at::Tensor, std::less<>> by_name_;
};

/// The options of `unet`. The lists go from the image to the lowest resolution.
struct LdmUnet {
  int64_t channels = 0, in_channels = 0, out_channels = 0, blocks = 0;
  std::vector<double> multipliers;
  std::vector<bool> attention;
  std::vector<int64_t> depth;  ///< transformer blocks of each level
  bool transformer = false, linear_projection = false, middle_attention = true, scale_shift = false, pool = false;
  int64_t context_width = 0;                    ///< of the tokens; 0 = none
  int64_t added_width = 0;                      ///< of the pooled vector and the embedded sizes (SDXL); 0 = none
  int64_t size_channels = 0;                    ///< of each embedded size: not to be read from the U-Net
  int64_t classes = 0;                          ///< rows of the class embedding; 0 = none
  std::optional<int64_t> heads, head_channels;  ///< one of them, if there is attention: not to be read from shapes

  bool attends() const;
  /// Returns the options. `size`: the height of the latents.
  Value options(int64_t size) const;
};
/// Throws ConfigError if the tensors are of a network that `unet` cannot be.
LdmUnet read_ldm_unet(const ModuleTensors& tensors);

/// The options of `kl` or `vq`.
struct LdmFirstStage {
  int64_t image_channels = 3, channels = 0, blocks = 0, latent_channels = 0;
  int64_t inner_channels = 0;  ///< z_channels; latent_channels are embed_dim
  std::vector<int64_t> multipliers;
  std::vector<bool> attention;
  bool middle_attention = true, quant_conv = true;
  int64_t codes = 0;  ///< of the codebook; 0 = a KL autoencoder

  int64_t ratio() const { return int64_t(1) << (multipliers.size() - 1); }
  /// Returns the options. `size`: the height of the images; `scale`: latent = scale z.
  Value options(int64_t size, double scale) const;
};
LdmFirstStage read_ldm_first_stage(const ModuleTensors& tensors);
/// Returns its tensors; the attention's projections, which newer programs wrote as linear layers, as 1x1 convolutions.
NamedTensors ldm_first_stage_tensors(const ModuleTensors& tensors);

/// The options of `clip_text`.
struct LdmText {
  int64_t length = 0, width = 0, depth = 0, mlp = 0;
  bool open_clip = false;  ///< OpenCLIP's (SD 2): gelu, padding of zeros; else OpenAI's (SD 1)
  Value options(int64_t heads) const;
};
/// Returns the options of the text encoder, from the shapes of its tensors. `penultimate`: OpenCLIP's last layer is not used, as in SD 2.
LdmText read_ldm_text(const ModuleTensors& tensors, bool penultimate);
/// Returns its tensors under the names of transformers' CLIPTextModel.
NamedTensors ldm_text_tensors(const ModuleTensors& tensors, const LdmText& text);

}  // namespace brume
