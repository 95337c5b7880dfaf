#include "brume/interop/layouts/diffusers_unet.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <set>
#include <utility>

#include "brume/config/errors.h"

namespace brume {
namespace {

using Pairs = std::vector<std::pair<const char*, const char*>>;  // ours, theirs

const Pairs whole{{"input_blocks.0.0.", "conv_in."},
                  {"out.0.", "conv_norm_out."},
                  {"out.2.", "conv_out."},
                  {"label_emb.0.0.", "add_embedding.linear_1."},
                  {"label_emb.0.2.", "add_embedding.linear_2."},
                  {"label_emb.0.", "class_embedding.linear_1."},
                  {"label_emb.2.", "class_embedding.linear_2."},
                  {"label_emb.weight", "class_embedding.weight"},
                  {"time_embed.0.", "time_embedding.linear_1."},
                  {"time_embed.2.", "time_embedding.linear_2."},
                  {"time_embed.guidance.", "time_embedding.cond_proj."}};
const Pairs in_residual{{"in_layers.0.", "norm1."},  {"in_layers.2.", "conv1."},  {"emb_layers.1.", "time_emb_proj."},
                        {"out_layers.0.", "norm2."}, {"out_layers.3.", "conv2."}, {"skip_connection.", "conv_shortcut."}};
const Pairs in_attention{{"norm.", "group_norm."}, {"q.", "to_q."}, {"k.", "to_k."}, {"v.", "to_v."}, {"proj_out.", "to_out.0."}};
/// Of attention in models saved before diffusers 0.15.
const Pairs in_former_attention{{"q.", "query."}, {"k.", "key."}, {"v.", "value."}, {"proj_out.", "proj_attn."}};

/// A table while it is filled module by module.
struct Modules {
  const UnetModules& unet;
  NameTable table;

  void add(const std::string& ours, const std::string& theirs) { table.add(ours + ".", theirs + "."); }
  void residual(const std::string& ours, const std::string& theirs) {
    add(ours, theirs);
    for (const auto& [from, to] : in_residual) table.add(fmt::format("{}.{}", ours, from), fmt::format("{}.{}", theirs, to));
  }
  void attention(const std::string& ours, const std::string& theirs) {
    add(ours, theirs);
    if (unet.transformer) return;
    for (const auto& [from, to] : in_attention) table.add(fmt::format("{}.{}", ours, from), fmt::format("{}.{}", theirs, to));
    for (const auto& [from, to] : in_former_attention) table.add_alias(fmt::format("{}.{}", ours, from), fmt::format("{}.{}", theirs, to));
  }
  /// Adds a resampling layer. `conv`: the convolution's name in ours.
  void sampler(const std::string& ours, const char* conv, const std::string& theirs) {
    if (unet.resampling == UnetModules::Resampling::residual) residual(ours, theirs);
    if (unet.resampling == UnetModules::Resampling::conv) add(fmt::format("{}.{}", ours, conv), theirs + ".conv");
  }

  void encoder() {
    const int64_t levels = std::ssize(unet.attention);
    for (int64_t level = 0, stage = 1; level < levels; ++level) {
      for (int64_t i = 0; i < unet.blocks; ++i, ++stage) {
        residual(fmt::format("input_blocks.{}.0", stage), fmt::format("down_blocks.{}.resnets.{}", level, i));
        if (unet.attention[size_t(level)])
          attention(fmt::format("input_blocks.{}.1", stage), fmt::format("down_blocks.{}.attentions.{}", level, i));
      }
      if (level + 1 < levels) sampler(fmt::format("input_blocks.{}.0", stage++), "op", fmt::format("down_blocks.{}.downsamplers.0", level));
    }
  }
  void middle() {
    residual("middle_block.0", "mid_block.resnets.0");
    if (unet.middle_attention) attention("middle_block.1", "mid_block.attentions.0");
    residual(unet.middle_attention ? "middle_block.2" : "middle_block.1", "mid_block.resnets.1");
  }
  void decoder() {
    const int64_t levels = std::ssize(unet.attention);
    for (int64_t level = 0, stage = 0; level < levels; ++level) {  // from the lowest resolution
      const bool attends = unet.attention[size_t(levels - 1 - level)];
      for (int64_t i = 0; i <= unet.blocks; ++i, ++stage) {
        residual(fmt::format("output_blocks.{}.0", stage), fmt::format("up_blocks.{}.resnets.{}", level, i));
        if (attends) attention(fmt::format("output_blocks.{}.1", stage), fmt::format("up_blocks.{}.attentions.{}", level, i));
      }
      if (level + 1 < levels)
        sampler(fmt::format("output_blocks.{}.{}", stage - 1, attends ? 2 : 1), "conv", fmt::format("up_blocks.{}.upsamplers.0", level));
    }
  }
};

/// Returns qkv [3C, ...] as q, k and v.
std::vector<at::Tensor> split_qkv(const at::Tensor& qkv, const UnetLayout& layout) {
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

/// q, k and v of a plain attention block as one projection.
struct Qkv {
  at::Tensor parts[3];
  bool whole() const { return parts[0].defined() && parts[1].defined() && parts[2].defined(); }
  at::Tensor joined(const std::string& name) const {
    for (const at::Tensor& part : parts)
      if (part.sizes() != parts[0].sizes() || part.scalar_type() != parts[0].scalar_type() || part.dim() == 0)
        throw ConfigError(fmt::format("{}: q, k and v are of shapes [{}], [{}] and [{}]; they must agree", name,
                                      fmt::join(parts[0].sizes(), ", "), fmt::join(parts[1].sizes(), ", "),
                                      fmt::join(parts[2].sizes(), ", ")));
    const at::Tensor all = at::cat({parts[0], parts[1], parts[2]}, 0);
    return all.dim() == 2 ? all.unsqueeze(-1) : all;
  }
};

/// Returns the place of the letter of "….q.weight"; npos if the name has none.
size_t letter_of(const std::string& name) {
  const size_t last = name.rfind('.');
  return last == std::string::npos || last < 2 || name[last - 2] != '.' ? std::string::npos : last - 1;
}

}  // namespace

UnetModules unet_modules(const std::vector<std::string>& names) {
  const std::set<std::string> sorted(names.begin(), names.end());
  const auto has = [&](const std::string& prefix) {
    const auto at = sorted.lower_bound(prefix);
    return at != sorted.end() && at->starts_with(prefix);
  };
  int64_t stages = 0;
  while (has(fmt::format("output_blocks.{}.", stages))) ++stages;
  UnetModules unet;
  int64_t each = stages;  // per level; the encoder has as many, the last of them changes the resolution
  for (int64_t stage = stages - 1; stage >= 0; --stage) {
    for (const int64_t module : {1, 2})
      for (const auto& [part, way] :
           {std::pair("conv.", UnetModules::Resampling::conv), std::pair("in_layers.", UnetModules::Resampling::residual)})
        if (has(fmt::format("output_blocks.{}.{}.{}", stage, module, part))) each = stage + 1, unet.resampling = way;
    if (stage > 0 && !has(fmt::format("input_blocks.{}.", stage))) each = stage, unet.resampling = UnetModules::Resampling::pool;
  }
  unet.blocks = each - 1;
  for (int64_t stage = 1; stage < stages; stage += each) unet.attention.push_back(has(fmt::format("input_blocks.{}.1.", stage)));
  unet.middle_attention = has("middle_block.2.");
  for (const std::string& name : names) unet.transformer = unet.transformer || name.find(".transformer_blocks.") != std::string::npos;
  return unet;
}

NameTable unet_names(const UnetModules& unet) {
  Modules modules{unet, {}};
  for (const auto& [ours, theirs] : whole) modules.table.add(ours, theirs);
  modules.encoder();
  modules.middle();
  modules.decoder();
  return std::move(modules.table);
}

int qkv_part(const std::string& name) {
  const size_t at = letter_of(name);
  const size_t part = at == std::string::npos ? at : std::string("qkv").find(name[at]);
  return part == std::string::npos ? -1 : int(part);
}

NamedTensors from_diffusers_unet(const NamedTensors& tensors, const UnetModules& modules) {
  const NameTable table = unet_names(modules);
  NamedTensors result;
  std::map<std::string, Qkv> joined;
  std::vector<std::string> unknown;
  for (const NamedTensor& t : tensors) {
    const std::optional<std::string> name = table.ours(t.name);
    if (!name) {
      unknown.push_back(t.name);
    } else if (const int part = qkv_part(*name); part >= 0) {
      const std::string qkv = std::string(*name).replace(letter_of(*name), 1, "qkv");
      joined[qkv].parts[part] = t.tensor;
      if (joined[qkv].whole()) result.push_back({qkv, joined[qkv].joined(qkv)});
    } else {
      const bool projection = !modules.transformer && name->ends_with(".proj_out.weight") && t.tensor.dim() == 2;
      result.push_back({*name, projection ? t.tensor.unsqueeze(-1) : t.tensor});
    }
  }
  if (!unknown.empty()) throw ConfigError(fmt::format("no place is known for {}", fmt::join(unknown, ", ")));
  return result;
}

NamedTensors to_diffusers_unet(const NamedTensors& tensors, const UnetLayout& layout) {
  std::vector<std::string> names;
  for (const NamedTensor& t : tensors) names.push_back(t.name);
  const UnetModules modules = unet_modules(names);
  const NameTable table = unet_names(modules);
  NamedTensors result;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    result.push_back({table.theirs(name).value_or(name), tensor});
  };
  for (const NamedTensor& t : tensors) {
    const bool projection = !modules.transformer && t.name.ends_with(".proj_out.weight");
    if (const size_t at = t.name.find(".qkv."); at == std::string::npos) {
      add(t.name, projection ? t.tensor.squeeze(-1) : t.tensor);
    } else {
      const std::vector<at::Tensor> parts = split_qkv(t.tensor, layout);
      for (size_t i = 0; i < 3; ++i) add(std::string(t.name).replace(at + 1, 3, 1, "qkv"[i]), parts[i]);
    }
  }
  return result;
}

}  // namespace brume
