#pragma once
// The weights of a U-Net or transformer and of the text encoders by the names that LoRA files of diffusers, PEFT and kohya's trainers have
// for them.
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "brume/core/network.h"
#include "brume/interop/layouts/name_table.h"
#include "brume/interop/layouts/transformer_lora.h"

namespace brume {

/// What a module of a LoRA file changes.
struct LoraTarget {
  const Weight* weight = nullptr;  ///< null if the model has no such module
  bool part = false;               ///< only q, k or v of a weight that holds all three, which are not merged
  LayerView view{};                ///< how the module is kept in the weight
};

constexpr std::string_view peft_prefix = "base_model.model.";

/// Returns the part of the model ("unet.", "text_encoder.", "text_encoder_2.", "text_encoder_3."; "" if the name is flat) and the name
/// within it of a module, without what programs put before it: PEFT "base_model.model.", diffusers "transformer." for "unet.", ComfyUI
/// "diffusion_model." and "text_encoders.clip_l.transformer.", kohya "lora_te1_" for "lora_te_", OneTrainer "lora_transformer_" and
/// SimpleTuner "lycoris_" for "lora_unet_". A name without a part is of the text encoder if it begins with "text_model.", else of the
/// network.
std::pair<std::string, std::string> lora_module(const std::string& name);

/// Returns true if a LoRA file can change a weight so that other programs follow: a matrix or a convolution of the network or of CLIP, but
/// no table of embeddings.
bool in_loras(const Weight& weight);

/// Finds a model's weights by the names of their modules in LoRA files.
class LoraNames {
 public:
  /// Tabulates the names of a model's modules. `weights` must outlive it.
  explicit LoraNames(const std::vector<Weight>& weights);
  /// Returns the weight of a module: "unet.mid_block.attentions.0.proj_in", "lora_unet_mid_block_attentions_0_proj_in",
  /// "text_encoder.…", "lora_te_…", CompVis' own "unet.middle_block.1.proj_in", or any name that lora_module() reads.
  LoraTarget find(const std::string& module) const { return found(by_name_, module); }
  /// Returns the bias of a module.
  LoraTarget find_bias(const std::string& module) const { return found(biases_, module); }
  /// Returns the modules that diffusers has for a weight: "unet.mid_block.attentions.0.proj_in", of a transformer
  /// "transformer.transformer_blocks.0.attn.to_q" and two more for queries, keys and values. A module that diffusers does not have keeps
  /// its own name. Throws std::logic_error if the weight is of no part that a LoRA file can name.
  std::vector<LayerAlias> diffusers_modules(const std::string& weight) const;
  /// Returns the module that kohya's trainers have for it, "lora_unet_mid_block_attentions_0_proj_in": with diffusers' names of the modules
  /// (SD 1, SD 2), or with those of the model's own program (SDXL, transformers). `ordered`: the change cannot follow rows in another
  /// order; a layer that has them so keeps brume's name.
  LayerAlias kohya_module(const std::string& weight, bool ordered) const;

 private:
  using Names = std::map<std::string, LoraTarget>;
  static LoraTarget found(const Names& names, const std::string& module);
  void add(Names& names, const std::string& dotted, const std::string& flat, const std::string& module, const LoraTarget& target);
  void add_network(const std::vector<Weight>& network, const std::vector<const Weight*>& whole);
  void add_text(const Weight& weight);
  Names& names_of(const Weight& weight);
  /// Returns the part and the own name of the module of a weight: {"unet.", "middle_block.1.proj_in"}.
  std::pair<std::string, std::string> own_name(const std::string& weight) const;

  Names by_name_, biases_;
  NameTable table_;
  std::vector<std::string> encoders_;                         ///< what the names of the weights of each of CLIP's text encoders begin with
  std::map<std::string, std::vector<LayerAlias>> diffusers_;  ///< modules of a transformer, by brume's name
  std::map<std::string, LayerAlias> flux_;                    ///< modules that FLUX's program has, by brume's name
};

}  // namespace brume
