#include "brume/interop/layouts/diffusers_vae.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "brume/config/number.h"
#include "brume/interop/layouts/name_table.h"

namespace brume {
namespace {

using Pairs = std::vector<std::pair<const char*, const char*>>;  // ours, theirs

const Pairs in_residual{{"nin_shortcut.", "conv_shortcut."}};
const Pairs in_attention{{"norm.", "group_norm."}, {"q.", "to_q."}, {"k.", "to_k."}, {"v.", "to_v."}, {"proj_out.", "to_out.0."}};
/// Of attention in models saved before diffusers 0.15.
const Pairs in_former_attention{{"q.", "query."}, {"k.", "key."}, {"v.", "value."}, {"proj_out.", "proj_attn."}};

/// How many levels, and blocks per level, the names have.
struct Size {
  int64_t levels = 0, blocks = 0;
};

/// Returns the number after `prefix`, plus one; 0 if the name does not begin with it, or the number is not one of a level or block.
int64_t count_of(std::string_view name, std::string_view prefix) {
  constexpr int64_t most = 100;
  if (!name.starts_with(prefix)) return 0;
  name.remove_prefix(prefix.size());
  const auto number = parse_number<int64_t>(std::string(name.substr(0, name.find('.'))));
  return number && *number >= 0 && *number < most ? *number + 1 : 0;
}

/// Reads the size from names of either program: those of the decoder, which has one block more per level, and of the encoder.
Size size_of(const NamedTensors& tensors) {
  Size size;
  for (const NamedTensor& t : tensors)
    for (const char* side : {"decoder.up.", "decoder.up_blocks.", "encoder.down.", "encoder.down_blocks."}) {
      const int64_t levels = count_of(t.name, side);
      if (levels == 0) continue;
      size.levels = std::max(size.levels, levels);
      for (const char* block : {"block.", "attn.", "resnets.", "attentions."})
        size.blocks = std::max(size.blocks, count_of(t.name, fmt::format("{}{}.{}", side, levels - 1, block)));
    }
  return size;
}

void add_module(NameTable& table, const std::string& ours, const std::string& theirs, const Pairs& inner, const Pairs& former = {}) {
  table.add(ours, theirs);
  for (const auto& [from, to] : inner) table.add(ours + from, theirs + to);
  for (const auto& [from, to] : former) table.add_alias(ours + from, theirs + to);
}

/// Blocks are numbered from the image in both halves of ours, and from the lowest resolution in the decoder of theirs.
void add_half(NameTable& table, bool encoder, const Size& size) {
  const std::string half = encoder ? "encoder." : "decoder.";
  table.add(half + "norm_out.", half + "conv_norm_out.");
  for (const int i : {0, 1})
    add_module(table, fmt::format("{}mid.block_{}.", half, i + 1), fmt::format("{}mid_block.resnets.{}.", half, i), in_residual);
  add_module(table, half + "mid.attn_1.", half + "mid_block.attentions.0.", in_attention, in_former_attention);
  for (int64_t level = 0; level < size.levels; ++level) {
    const std::string ours = fmt::format("{}{}.{}.", half, encoder ? "down" : "up", level),
                      theirs = encoder ? fmt::format("{}down_blocks.{}.", half, level)
                                       : fmt::format("{}up_blocks.{}.", half, size.levels - 1 - level);
    table.add(ours + (encoder ? "downsample." : "upsample."), theirs + (encoder ? "downsamplers.0." : "upsamplers.0."));
    for (int64_t i = 0; i < size.blocks; ++i) {
      add_module(table, fmt::format("{}block.{}.", ours, i), fmt::format("{}resnets.{}.", theirs, i), in_residual);
      add_module(table, fmt::format("{}attn.{}.", ours, i), fmt::format("{}attentions.{}.", theirs, i), in_attention, in_former_attention);
    }
  }
}

NameTable vae_names(const NamedTensors& tensors) {
  const Size size = size_of(tensors);
  NameTable table;
  for (const bool encoder : {true, false}) add_half(table, encoder, size);
  return table;
}

}  // namespace

NamedTensors from_diffusers_vae(const NamedTensors& tensors) {
  const NameTable table = vae_names(tensors);
  NamedTensors result;
  for (const NamedTensor& t : tensors) {
    const std::optional<std::string> name = table.ours(t.name);
    const bool linear = name && name->find(".attn") != std::string::npos && t.tensor.dim() == 2;
    result.push_back({name.value_or(t.name), linear ? t.tensor.unsqueeze(-1).unsqueeze(-1) : t.tensor});
  }
  return result;
}

NamedTensors to_diffusers_vae(const NamedTensors& tensors) {
  const NameTable table = vae_names(tensors);
  NamedTensors result;
  for (const NamedTensor& t : tensors) {
    const bool projection = t.name.find(".attn") != std::string::npos && t.tensor.dim() == 4;
    result.push_back({table.theirs(t.name).value_or(t.name), projection ? t.tensor.squeeze(-1).squeeze(-1) : t.tensor});
  }
  return result;
}

}  // namespace brume
