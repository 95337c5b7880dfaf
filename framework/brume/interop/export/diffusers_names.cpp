#include "brume/interop/export/diffusers_names.h"

#include <fmt/format.h>

#include <charconv>
#include <string_view>
#include <utility>
#include <vector>

namespace brume {
namespace {

using Renaming = std::vector<std::pair<std::string_view, std::string_view>>;

/// `name` with what it begins with replaced; as it is where nothing of the table is.
std::string renamed(std::string_view name, const Renaming& table) {
  for (const auto& [from, to] : table)
    if (name.starts_with(from)) return fmt::format("{}{}", to, name.substr(from.size()));
  return std::string(name);
}

/// Takes "12." off the front of a name.
int64_t take_number(std::string_view& name) {
  int64_t number = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error == std::errc()) name.remove_prefix(size_t(end - name.data()));
  if (!name.empty() && name.front() == '.') name.remove_prefix(1);
  return number;
}

const Renaming whole{{"input_blocks.0.0.", "conv_in."},
                     {"out.0.", "conv_norm_out."},
                     {"out.2.", "conv_out."},
                     {"label_emb.0.", "class_embedding.linear_1."},
                     {"label_emb.2.", "class_embedding.linear_2."},
                     {"label_emb.weight", "class_embedding.weight"},
                     {"time_embed.0.", "time_embedding.linear_1."},
                     {"time_embed.2.", "time_embedding.linear_2."}};
const Renaming in_block{{"in_layers.0.", "norm1."},  {"in_layers.2.", "conv1."},  {"emb_layers.1.", "time_emb_proj."},
                        {"out_layers.0.", "norm2."}, {"out_layers.3.", "conv2."}, {"skip_connection.", "conv_shortcut."}};
const Renaming in_attention{{"norm.", "group_norm."}, {"proj_out.", "to_out.0."}};

/// Where a block's tensor stands, and its name within the block.
struct Place {
  std::string module;
  std::string_view rest;
};

/// `kind`: 0 = the residual block, 1 = what follows it.
Place place(const std::string& side, int64_t level, int64_t index, bool attention, std::string_view rest) {
  return {fmt::format("{}_blocks.{}.{}.{}.", side, level, attention ? "attentions" : "resnets", index), rest};
}

Place place_of(std::string_view name, const UnetLayout& layout) {
  std::string_view rest = name;
  if (name.starts_with("middle_block.")) {
    rest.remove_prefix(13);
    const int64_t n = take_number(rest);
    if (n == 1 && layout.middle_attention) return {"mid_block.attentions.0.", rest};
    return {fmt::format("mid_block.resnets.{}.", n == 0 ? 0 : 1), rest};
  }
  const bool down = name.starts_with("input_blocks.");
  rest.remove_prefix(down ? 13 : 14);
  const int64_t n = take_number(rest) - (down ? 1 : 0), each = layout.blocks + 1, part = take_number(rest);
  const bool residual = rest.starts_with("in_layers.") || rest.starts_with("emb_layers.") || rest.starts_with("out_layers.");
  if (down && n % each == layout.blocks)
    return residual ? Place{fmt::format("down_blocks.{}.downsamplers.0.", n / each), rest}
                    : Place{fmt::format("down_blocks.{}.downsamplers.0.conv.", n / each), rest.substr(3)};  // "op."
  if (!down && part > 0 && (residual || rest.starts_with("conv."))) return {fmt::format("up_blocks.{}.upsamplers.0.", n / each), rest};
  return place(down ? "down" : "up", n / each, n % each, part == 1, rest);
}

/// qkv [3C, ...] as q, k and v.
std::vector<at::Tensor> apart(const at::Tensor& qkv, const UnetLayout& layout) {
  const int64_t channels = qkv.size(0) / 3, heads = layout.heads_of(channels);
  const at::Tensor flat = qkv.reshape({3 * channels, -1});
  std::vector<at::Tensor> parts;
  for (int64_t i = 0; i < 3; ++i) {
    at::Tensor part = layout.heads_first ? flat.reshape({heads, 3, channels / heads, -1}).select(1, i).reshape({channels, -1})
                                         : flat.narrow(0, i * channels, channels);
    parts.push_back(qkv.dim() == 1 ? part.reshape({channels}) : part);
  }
  return parts;
}

}  // namespace

NamedTensors to_diffusers_unet(const NamedTensors& tensors, const UnetLayout& layout) {
  NamedTensors result;
  for (const NamedTensor& t : tensors) {
    const std::string_view name = t.name;
    const bool block = name.starts_with("middle_block.") || name.starts_with("output_blocks.") ||
                       (name.starts_with("input_blocks.") && !name.starts_with("input_blocks.0."));
    if (!block) {
      result.push_back({renamed(name, whole), t.tensor});
      continue;
    }
    const auto [module, rest] = place_of(name, layout);
    const bool attention = module.find("attentions") != std::string::npos;
    const bool transformer = attention && (rest.starts_with("proj_in.") || rest.starts_with("transformer_blocks."));
    if (!attention) {
      result.push_back({module + renamed(rest, in_block), t.tensor});
    } else if (rest.starts_with("qkv.")) {
      const std::vector<at::Tensor> parts = apart(t.tensor, layout);
      for (size_t i = 0; i < 3; ++i) result.push_back({fmt::format("{}to_{}.{}", module, "qkv"[i], rest.substr(4)), parts[i]});
    } else {
      // A transformer's norm and projections keep their names; a plain block's projection [C, C, 1] becomes a linear layer.
      const bool plain = !transformer && find(tensors, fmt::format("{}qkv.weight", name.substr(0, name.size() - rest.size()))) != nullptr;
      const bool projection = plain && rest == "proj_out.weight";
      result.push_back({module + (plain ? renamed(rest, in_attention) : std::string(rest)), projection ? t.tensor.squeeze(-1) : t.tensor});
    }
  }
  return result;
}

namespace {

const Renaming in_stage_block{{"nin_shortcut.", "conv_shortcut."}};
const Renaming in_stage_attention{{"norm.", "group_norm."}, {"q.", "to_q."}, {"k.", "to_k."}, {"v.", "to_v."}, {"proj_out.", "to_out.0."}};

/// Within the encoder or the decoder.
std::string stage_name(std::string_view name, int64_t levels) {
  const bool down = name.starts_with("down."), up = name.starts_with("up.");
  if (name.starts_with("norm_out.")) return renamed(name, {{"norm_out.", "conv_norm_out."}});
  if (name.starts_with("mid.attn_1.")) return "mid_block.attentions.0." + renamed(name.substr(11), in_stage_attention);
  if (name.starts_with("mid.block_"))
    return fmt::format("mid_block.resnets.{}.{}", name[10] == '1' ? 0 : 1, renamed(name.substr(12), in_stage_block));
  if (!down && !up) return std::string(name);
  std::string_view rest = name.substr(down ? 5 : 3);
  const int64_t level = take_number(rest);
  const std::string block = fmt::format("{}_blocks.{}.", down ? "down" : "up", down ? level : levels - 1 - level);
  if (rest.starts_with("downsample.")) return block + renamed(rest, {{"downsample.", "downsamplers.0."}});
  if (rest.starts_with("upsample.")) return block + renamed(rest, {{"upsample.", "upsamplers.0."}});
  const bool attention = rest.starts_with("attn.");
  rest.remove_prefix(attention ? 5 : 6);  // "block."
  const int64_t index = take_number(rest);
  return fmt::format("{}{}.{}.{}", block, attention ? "attentions" : "resnets", index,
                     renamed(rest, attention ? in_stage_attention : in_stage_block));
}

}  // namespace

NamedTensors to_diffusers_vae(const NamedTensors& tensors, int64_t levels) {
  NamedTensors result;
  for (const NamedTensor& t : tensors) {
    std::string name = t.name;
    for (const std::string_view half : {"encoder.", "decoder."})
      if (t.name.starts_with(half)) name = fmt::format("{}{}", half, stage_name(std::string_view(t.name).substr(half.size()), levels));
    const bool projection = t.name.find(".attn") != std::string::npos && t.tensor.dim() == 4;
    result.push_back({name, projection ? t.tensor.squeeze(-1).squeeze(-1) : t.tensor});
  }
  return result;
}

}  // namespace brume
