#include "brume/interop/import/ldm_parts.h"
#include "brume/config/number.h"
#include "brume/config/tree.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/interop/layouts/open_clip.h"

namespace brume {
namespace {

/// Returns true for the names of an attention's projections [C, C, 1, 1] in a first stage.
bool is_projection(const std::string& name) {
  if (name.find(".attn") == std::string::npos || !name.ends_with(".weight")) return false;
  for (const char* part : {".q.", ".k.", ".v.", ".proj_out."})
    if (name.find(part) != std::string::npos) return true;
  return false;
}

template <class T>
bool all_equal(const std::vector<T>& values) {
  return std::all_of(values.begin(), values.end(), [&](const T& v) { return v == values.front(); });
}

std::vector<int64_t> heights(const std::vector<bool>& attention, int64_t size) {
  std::vector<int64_t> all;
  for (size_t i = 0; i < attention.size(); ++i)
    if (attention[i]) all.push_back(i < 63 ? size >> i : 0);  // the network refuses so many levels
  return all;
}

}  // namespace

ModuleTensors::ModuleTensors(const NamedTensors& all, const std::string& prefix) : prefix_(prefix) {
  for (const NamedTensor& t : all)
    if (t.name.starts_with(prefix)) by_name_.emplace(t.name.substr(prefix.size()), t.tensor);
}

bool ModuleTensors::below(const std::string& prefix) const {
  const auto at = by_name_.lower_bound(prefix);
  return at != by_name_.end() && at->first.starts_with(prefix);
}

int64_t ModuleTensors::size(const std::string& name, int64_t dim) const {
  const auto at = by_name_.find(name);
  if (at == by_name_.end()) throw ConfigError(fmt::format("lacks the tensor '{}{}'", prefix_, name));
  if (at->second.dim() <= dim)
    throw ConfigError(fmt::format("tensor '{}{}' has shape [{}], expected {} at least", prefix_, name, fmt::join(at->second.sizes(), ", "),
                                  counted(dim + 1, "dimension")));
  return at->second.size(dim);
}

int64_t ModuleTensors::count(const std::string& prefix, int64_t first) const {
  int64_t n = 0;
  while (below(fmt::format("{}{}.", prefix, first + n))) ++n;
  return n;
}

bool LdmUnet::attends() const {
  return middle_attention || std::any_of(attention.begin(), attention.end(), [](bool a) { return a; });
}

Value LdmUnet::options(int64_t size) const {
  Value unet = plugin_of("unet", {{"channels", channels},
                                  {"multipliers", multipliers},
                                  {"blocks", blocks},
                                  {"attention_resolutions", heights(attention, size)},
                                  {"middle_attention", middle_attention},
                                  {"scale_shift", scale_shift},
                                  {"resampling", pool ? "pool" : "conv"},
                                  {"dropout", 0}});
  if (head_channels) unet.set("head_channels", value_of(*head_channels));
  if (heads) unet.set("heads", value_of(*heads));
  if (size_channels > 0) unet.set("size_channels", value_of(size_channels));
  if (transformer)
    unet.set("transformer", map_of({{"depth", all_equal(depth) ? std::vector<int64_t>{depth.front()} : depth},
                                    {"projection", linear_projection ? "linear" : "conv"}}));
  return unet;
}

namespace {

/// Walks input_blocks: a residual block, or a halving by a strided convolution or by pooling, which has no tensors.
void read_encoder(const ModuleTensors& t, LdmUnet& u) {
  constexpr std::string_view input_blocks = "input_blocks.";
  int64_t last = 0;
  for (const auto& [name, _] : t.by_name())
    if (std::string_view rest(name); rest.starts_with(input_blocks)) {
      rest.remove_prefix(input_blocks.size());
      last = std::max(last, take_number<int64_t>(rest).value_or(0));
    }
  std::vector<int64_t> widths, counts(1, 0);
  const auto next_level = [&] { counts.push_back(0); };
  for (int64_t n = 1; n <= last; ++n) {
    const std::string here = fmt::format("input_blocks.{}.", n);
    if (t.has(here + "0.op.weight") || !t.below(here)) {
      u.pool = u.pool || !t.below(here);
      next_level();
      continue;
    }
    const int64_t width = t.size(here + "0.out_layers.3.weight", 0), level = int64_t(counts.size()) - 1;
    const bool attends = t.below(here + "1.");
    if (++counts.back() == 1) {
      widths.push_back(width);
      u.attention.push_back(attends);
      u.depth.push_back(std::max<int64_t>(1, t.count(here + "1.transformer_blocks.")));
    } else if (widths[size_t(level)] != width || u.attention[size_t(level)] != attends) {
      throw ConfigError(
          fmt::format("input_blocks.{}: is no block of the level it stands in; levels that are joined by residual blocks (resblock_updown) "
                      "are not read "
                      "from a latent diffusion model",
                      n));
    }
  }
  u.blocks = counts.front();
  if (u.blocks == 0 || !all_equal(counts))
    throw ConfigError(
        fmt::format("the U-Net's levels have {} residual blocks; the unet of brume has as many in each", fmt::join(counts, ", ")));
  for (const int64_t w : widths) u.multipliers.push_back(double(w) / double(u.channels));
}

}  // namespace

LdmUnet read_ldm_unet(const ModuleTensors& t) {
  LdmUnet u;
  u.channels = t.size("time_embed.0.weight", 1);
  u.in_channels = t.size("input_blocks.0.0.weight", 1);
  u.out_channels = t.size("out.2.weight", 0);
  if (t.has("label_emb.weight"))
    u.classes = t.size("label_emb.weight", 0);
  else if (t.below("label_emb."))
    u.added_width = t.size("label_emb.0.0.weight", 1);
  read_encoder(t, u);
  u.middle_attention = t.below("middle_block.2.");
  u.scale_shift = t.size("middle_block.0.emb_layers.1.weight", 0) == 2 * t.size("middle_block.0.out_layers.3.weight", 0);
  for (const auto& [name, tensor] : t.by_name()) {
    u.transformer = u.transformer || name.find(".transformer_blocks.") != std::string::npos;
    if (name.ends_with(".attn2.to_k.weight") && u.context_width == 0) u.context_width = t.size(name, 1);
    if (name.ends_with(".1.proj_in.weight")) u.linear_projection = tensor.dim() == 2;
  }
  if (u.transformer && u.middle_attention) {
    const int64_t depth = std::max<int64_t>(1, t.count("middle_block.1.transformer_blocks."));
    if (!u.attention.back()) u.depth.back() = depth;
    if (u.depth.back() != depth)
      throw ConfigError(
          fmt::format("middle_block: has {} transformer blocks and the lowest level {}; in the unet of brume they have as many", depth,
                      u.depth.back()));
  }
  return u;
}

Value LdmFirstStage::options(int64_t size, double scale) const {
  Value stage = plugin_of(codes > 0 ? "vq" : "kl", {{"channels", channels},
                                                    {"multipliers", multipliers},
                                                    {"blocks", blocks},
                                                    {"attention_resolutions", heights(attention, size)},
                                                    {"middle_attention", middle_attention},
                                                    {"latent_channels", latent_channels},
                                                    {"quant_conv", quant_conv},
                                                    {"scale", scale}});
  if (inner_channels != latent_channels) stage.set("inner_channels", value_of(inner_channels));
  if (codes == 0) return stage;
  stage.set("codes", value_of(codes));
  stage.set("codebook", value_of("gradient"));
  stage.set("restart_after", value_of(0));
  return stage;
}

LdmFirstStage read_ldm_first_stage(const ModuleTensors& t) {
  LdmFirstStage s;
  s.image_channels = t.size("encoder.conv_in.weight", 1);
  s.channels = t.size("encoder.conv_in.weight", 0);
  for (int64_t i = 0; i < t.count("encoder.down."); ++i) {
    const std::string here = fmt::format("encoder.down.{}.", i);
    const int64_t blocks = t.count(here + "block.");
    if (i > 0 && blocks != s.blocks)
      throw ConfigError(fmt::format("encoder.down.{}: has {} and the level before {}; a first stage has as many in each", i,
                                    counted(blocks, "block"), s.blocks));
    s.blocks = blocks;
    s.multipliers.push_back(t.size(here + "block.0.conv2.weight", 0) / std::max<int64_t>(1, s.channels));
    s.attention.push_back(t.below(here + "attn."));
  }
  if (s.multipliers.empty()) throw ConfigError("lacks the levels of a first stage, 'encoder.down.0.' and on");
  s.middle_attention = t.below("encoder.mid.attn_1.");
  s.quant_conv = t.has("quant_conv.weight");
  s.inner_channels = t.size("decoder.conv_in.weight", 1);
  if (t.has("quantize.embedding.weight")) s.codes = t.size("quantize.embedding.weight", 0);
  s.latent_channels = s.quant_conv ? t.size("post_quant_conv.weight", 1) : s.inner_channels;
  return s;
}

NamedTensors ldm_first_stage_tensors(const ModuleTensors& tensors) {
  NamedTensors result;
  for (const auto& [name, tensor] : tensors.by_name()) {
    if (name.starts_with("loss.")) continue;
    const bool linear = tensor.dim() == 2 && is_projection(name);
    result.push_back({name, linear ? tensor.unsqueeze(-1).unsqueeze(-1) : tensor});
  }
  return result;
}

Value LdmText::options(int64_t heads) const {
  Value text = plugin_of("clip_text", {{"tokenizer", "tokenizer"},
                                       {"length", length},
                                       {"width", width},
                                       {"depth", depth},
                                       {"heads", heads},
                                       {"mlp", mlp},
                                       {"activation", open_clip ? "gelu" : "quick_gelu"}});
  if (open_clip) text.set("pad", value_of(0));
  return text;
}

namespace {

/// OpenCLIP's module within "cond_stage_model.", transformers' with and without its own level.
constexpr std::string_view open_clip = "model.", clip = "transformer.text_model.", bare_clip = "transformer.";

}  // namespace

LdmText read_ldm_text(const ModuleTensors& t, bool penultimate) {
  LdmText text;
  text.open_clip = t.has("model.positional_embedding");
  if (text.open_clip) {
    text.length = t.size("model.positional_embedding", 0);
    text.width = t.size("model.positional_embedding", 1);
    text.mlp = t.size("model.transformer.resblocks.0.mlp.c_fc.weight", 0);
    text.depth = t.count("model.transformer.resblocks.") - (penultimate ? 1 : 0);
    return text;
  }
  const std::string from(t.below(std::string(clip)) ? clip : bare_clip);
  text.length = t.size(from + "embeddings.position_embedding.weight", 0);
  text.width = t.size(from + "embeddings.position_embedding.weight", 1);
  text.depth = t.count(from + "encoder.layers.");
  text.mlp = t.size(from + "encoder.layers.0.mlp.fc1.weight", 0);
  return text;
}

NamedTensors ldm_text_tensors(const ModuleTensors& tensors, const LdmText& text) {
  NamedTensors result;
  if (text.open_clip) {
    for (const auto& [name, tensor] : tensors.by_name())
      if (name.starts_with(open_clip)) result.push_back({name.substr(open_clip.size()), tensor});
    return from_open_clip(result, text.depth);
  }
  const std::string_view from = tensors.below(std::string(clip)) ? clip : bare_clip;
  for (const auto& [name, tensor] : tensors.by_name()) {
    if (!name.starts_with(from) || name.ends_with("embeddings.position_ids")) continue;
    result.push_back({fmt::format("text_model.{}", std::string_view(name).substr(from.size())), tensor});
  }
  return result;
}

}  // namespace brume
