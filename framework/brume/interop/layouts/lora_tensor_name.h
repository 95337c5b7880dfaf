#pragma once
// The names of the tensors of LoRA files and of their kin, taken apart. Of the weight "mid_block.attentions.0.proj_in" of diffusers' U-Net:
//
//   kohya            lora_unet_mid_block_attentions_0_proj_in.lora_down.weight, .lora_up.weight, .alpha;   lora_te_… of the text encoder
//   LyCORIS          the same with .lora_mid.weight, .hada_w1_a, .lokr_w1, .dora_scale, .w_norm, .diff, .oft_blocks, .a1.weight, ...
//   diffusers, PEFT  unet.mid_block.attentions.0.proj_in.lora_A.weight, .lora_B.weight;   text_encoder.…; alpha in the file's metadata
//   diffusers, old   unet.….proj_in.lora.down.weight, ….attn1.processor.to_q_lora.down.weight, ….q_proj.lora_linear_layer.down.weight
//   PEFT alone       base_model.model.mid_block.attentions.0.proj_in.lora_A.weight, ….lora_A.ADAPTER.weight; alpha in adapter_config.json
//   XLabs (FLUX)     double_blocks.0.processor.qkv_lora1.down.weight, ….proj_lora2.up.weight
//   ComfyUI          diffusion_model.middle_block.1.proj_in.lora_down.weight, .lora_up.weight, .alpha
#include <optional>
#include <string>
#include <string_view>

namespace brume {

/// A tensor's name, taken apart.
struct LoraTensorName {
  std::string module;
  std::string role;     ///< as WeightChange::parts has it, "alpha", "diff_b" of a bias, or "up_b": of the up matrix
  std::string adapter;  ///< PEFT's name of the adapter; empty for most
};

/// Returns the parts of the name of a tensor; nothing if no adapter has tensors of such names. ".weight" of IA3, which any model has, is
/// not taken apart.
std::optional<LoraTensorName> lora_tensor_name(std::string_view name);

/// Returns true if a tensor of this name is a matrix of a LoRA or of its kin.
bool is_lora_matrix(std::string_view name);

}  // namespace brume
