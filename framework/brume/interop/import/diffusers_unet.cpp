#include "brume/interop/import/diffusers_unet.h"
#include "brume/config/tree.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/interop/import/diffusers_config.h"
#include "brume/interop/layouts/diffusers_unet.h"

namespace brume {
namespace {

constexpr int64_t most_blocks = 100;  ///< a level, of either kind

void refuse_unknown_keys(const DiffusersConfig& c) {
  if (const auto act = c.get<std::string>("act_fn", "silu"); act != "silu" && act != "swish") c.refuse("act_fn", "\"silu\"");
  c.only<double>("mid_block_scale_factor", 1);
  c.only<double>("resnet_out_scale_factor", 1);
  c.only<int64_t>("conv_in_kernel", 3);
  c.only<int64_t>("conv_out_kernel", 3);
  c.only<std::string>("time_embedding_type", "positional");
  c.only<bool>("resnet_skip_time_act", false);
  c.only<std::string>("attention_type", "default");  // the other is GLIGEN's
  for (const char* key : {"encoder_hid_dim", "encoder_hid_dim_type", "dual_cross_attention", "time_embedding_dim", "time_embedding_act_fn",
                          "timestep_post_act", "cross_attention_norm", "center_input_sample", "class_embeddings_concat",
                          "reverse_transformer_layers_per_block"})
    c.absent(key);
}

/// Reads a table of classes, or the class as a number. The other types embed a vector, which no conditioner of brume tells a network.
void read_classes(const DiffusersConfig& c, DiffusersUnet& u) {
  const auto type = c.get<std::string>("class_embed_type", "");
  if (!type.empty() && type != "timestep") c.refuse("class_embed_type", "null, a table of num_class_embeds classes, and \"timestep\"");
  u.number = type == "timestep";
  u.classes = c.get<int64_t>("num_class_embeds", 0);
  constexpr int64_t most_classes = 10000000;
  if (u.classes < 0 || u.classes > most_classes)
    c.refuse("num_class_embeds", fmt::format("null and up to {}", counted(most_classes, "class")));
}

/// Reads a pooled vector and sizes, which come with the tokens (SDXL).
void read_added(const DiffusersConfig& c, DiffusersUnet& u) {
  const auto type = c.get<std::string>("addition_embed_type", "");
  if (type.empty()) return;
  if (type != "text_time") c.refuse("addition_embed_type", "null, and \"text_time\", a pooled vector and sizes (SDXL)");
  u.added_width = c.get<int64_t>("projection_class_embeddings_input_dim", 0);
  u.size_channels = c.get<int64_t>("addition_time_embed_dim", 0);
  if (u.size_channels < 2 || u.size_channels % 2) c.refuse("addition_time_embed_dim", "an even number");
  if (u.added_width <= u.size_channels) c.refuse("projection_class_embeddings_input_dim", "more than addition_time_embed_dim");
}

/// Reads the width of the embedded guidance scale (LCM).
void read_guidance(const DiffusersConfig& c, DiffusersUnet& u) {
  u.guidance_channels = c.get<int64_t>("time_cond_proj_dim", 0);
  constexpr int64_t most = 65536;
  if (c.has("time_cond_proj_dim") && (u.guidance_channels < 4 || u.guidance_channels > most || u.guidance_channels % 2 != 0))
    c.refuse("time_cond_proj_dim", fmt::format("null, and even numbers from 4 to {}", most));
}

/// Reads which levels attend to the tokens alone. The middle block attends to the pixels, whatever mid_block_only_cross_attention says.
void read_only_cross(const DiffusersConfig& c, DiffusersUnet& u) {
  constexpr const char* key = "only_cross_attention";
  const auto at = c.values().find(key);
  if (at != c.values().end() && at->is_array()) {
    u.only_cross = c.get<std::vector<bool>>(key, {});
    if (u.only_cross.size() != u.channels.size()) c.refuse(key, fmt::format("a list of {}", u.channels.size()));
  } else {
    u.only_cross.assign(u.channels.size(), c.get(key, false));
  }
  if (!u.transformer()) u.only_cross.assign(u.channels.size(), false);
}

/// What the names of the blocks say of one way, from the image to the lowest resolution.
struct Levels {
  std::vector<bool> attention;
  std::vector<bool> residual;  ///< whether the resolution changes by residual blocks; of all levels but the last
};

Levels levels_of(const DiffusersConfig& c, const char* key, bool tokens, size_t count) {
  const bool down = std::string_view(key).starts_with("down");
  const std::string way = down ? "Down" : "Up", plain = way + "Block2D", attends = (tokens ? "CrossAttn" : "Attn") + plain,
                    residual = "Resnet" + way + "sampleBlock2D";
  std::vector<std::string> usual(4, attends);  // all levels but the lowest resolution's, or, without tokens, the image's
  (down == tokens ? usual.back() : usual.front()) = plain;
  // Of the blocks that attend without tokens, a key of its own says how they change the resolution.
  const char* resampling = down ? "downsample_type" : "upsample_type";
  const auto type_of_attending = c.get<std::string>(resampling, "conv");
  if (type_of_attending != "conv" && (tokens || type_of_attending != "resnet"))
    c.refuse(resampling, tokens ? "\"conv\"" : "\"conv\" and \"resnet\"");
  std::vector<std::string> types = c.get(key, usual);
  if (types.size() != count) c.refuse(key, fmt::format("a list of {}, one per number of block_out_channels,", count));
  if (!down) std::reverse(types.begin(), types.end());
  Levels levels;
  for (const std::string& type : types) {
    if (type != plain && type != attends && type != residual) c.refuse(key, fmt::format("{}, {} and {}", plain, attends, residual));
    levels.attention.push_back(type == attends);
    levels.residual.push_back(type == residual || (type == attends && type_of_attending == "resnet"));
  }
  levels.residual.pop_back();
  return levels;
}

void read_levels(const DiffusersConfig& c, DiffusersUnet& u) {
  const Levels down = levels_of(c, "down_block_types", u.transformer(), u.channels.size()),
               up = levels_of(c, "up_block_types", u.transformer(), u.channels.size());
  if (up.attention != down.attention || up.residual != down.residual) c.refuse("up_block_types", "the mirror image of down_block_types");
  const auto residual = std::count(down.residual.begin(), down.residual.end(), true);
  if (residual != 0 && residual != std::ssize(down.residual))
    c.refuse("down_block_types", "the same way of changing the resolution (a convolution, or residual blocks) for all levels");
  u.attention = down.attention;
  u.residual_resampling = residual != 0;
}

/// Returns true if a level, or the middle below it, has attention.
bool attends(const DiffusersUnet& u, size_t level) { return u.attention[level] || (u.middle_attention && level + 1 == u.channels.size()); }

void read_attention(const DiffusersConfig& c, DiffusersUnet& u) {
  const size_t levels = u.channels.size();
  // Its models with tokens call the number of heads attention_head_dim (huggingface/diffusers#2011).
  if (u.transformer()) {
    u.heads = c.each(c.has("num_attention_heads") ? "num_attention_heads" : "attention_head_dim", levels, 8);
    u.depth = c.each("transformer_layers_per_block", levels, 1);
    for (const int64_t d : u.depth)
      if (d < 1 || d > most_blocks) c.refuse("transformer_layers_per_block", fmt::format("1 to {} a level", most_blocks));
  } else {
    const std::vector<int64_t> widths = c.each("attention_head_dim", levels, 8);
    for (size_t i = 0; i < levels; ++i)  // null: one head; the others have this width
      u.heads.push_back(c.null("attention_head_dim") ? 1 : u.channels[i] / std::max<int64_t>(1, widths[i]));
    u.depth.assign(levels, 1);
  }
  const char* key = c.has("num_attention_heads") ? "num_attention_heads" : "attention_head_dim";
  for (const int64_t heads : u.heads)
    if (heads < 1) c.refuse(key, "at least one head per level");
  const std::string middle = u.transformer() ? "UNetMidBlock2DCrossAttn" : "UNetMidBlock2D";
  if (c.null("mid_block_type")) c.refuse("mid_block_type", "\"" + middle + "\"");
  c.only("mid_block_type", middle);
  u.middle_attention = u.transformer() || c.get("add_attention", true);
  if (!u.transformer()) c.only<int64_t>("attn_norm_num_groups", u.groups);  // of the middle's attention
  for (size_t i = 0; i < levels; ++i)
    if (attends(u, i) && u.channels[i] % u.heads[i] != 0) c.refuse(key, "numbers that divide the channels of their levels");
}

void read_size(const DiffusersConfig& c, DiffusersUnet& u, std::optional<int64_t> size) {
  if (size) {
    u.height = u.width = *size;
  } else if (c.values().contains("sample_size") && c.values()["sample_size"].is_array()) {
    const auto sizes = c.each("sample_size", 2, 0);
    u.height = sizes[0], u.width = sizes[1];
  } else {
    u.height = u.width = c.get<int64_t>("sample_size", 64);
  }
  if (u.height < 1 || u.width < 1) c.refuse("sample_size", "heights and widths of at least 1");
}

}  // namespace

namespace {

/// Returns true if "_diffusers_version" is before 0.9.
bool is_before_0_9(const DiffusersConfig& c) {
  const auto version = c.get<std::string>("_diffusers_version", "");
  const size_t dot = version.find('.'), next = version.find_first_not_of("0123456789", dot == std::string::npos ? dot : dot + 1);
  if (dot == std::string::npos) return false;
  const auto major = parse_number<int64_t>(std::string_view(version).substr(0, dot));
  const auto minor = parse_number<int64_t>(std::string_view(version).substr(dot + 1, next == std::string::npos ? next : next - dot - 1));
  return major == 0 && minor && *minor < 9;
}

}  // namespace

DiffusersUnet read_diffusers_unet(const std::filesystem::path& config, std::optional<int64_t> size, const std::string& type) {
  return read_diffusers_unet(DiffusersConfig(config, "the unet of brume", type), size);
}

DiffusersUnet read_diffusers_unet(const DiffusersConfig& c, std::optional<int64_t> size) {
  refuse_unknown_keys(c);
  DiffusersUnet u;
  const bool tokens = c.get<std::string>("_class_name", "UNet2DConditionModel") == "UNet2DConditionModel";
  u.channels =
      c.widths("block_out_channels", tokens ? std::vector<int64_t>{320, 640, 1280, 1280} : std::vector<int64_t>{224, 448, 672, 896});
  u.context_width = tokens ? c.get<int64_t>("cross_attention_dim", 1280) : 0;
  const std::vector<int64_t> blocks = c.each("layers_per_block", u.channels.size(), 2);
  u.blocks = blocks[0];
  for (const int64_t b : blocks)
    if (b != u.blocks || b < 1 || b > most_blocks)
      c.refuse("layers_per_block", fmt::format("the same number for all levels, from 1 to {},", most_blocks));
  read_size(c, u, size);
  u.before_0_9 = is_before_0_9(c);
  u.in_channels = c.get<int64_t>("in_channels", tokens ? 4 : 3);
  u.out_channels = c.get<int64_t>("out_channels", tokens ? 4 : 3);
  read_classes(c, u);
  read_added(c, u);
  read_guidance(c, u);
  read_only_cross(c, u);
  u.groups = groups_of(c, u.channels);
  u.dropout = c.get<double>("dropout", 0);
  u.linear_projection = c.get("use_linear_projection", false);
  const auto shift = c.get<std::string>("resnet_time_scale_shift", "default");
  if (shift != "default" && shift != "scale_shift") c.refuse("resnet_time_scale_shift", "\"default\" and \"scale_shift\"");
  u.scale_shift = shift == "scale_shift";
  u.norm_eps = c.get<double>("norm_eps", 1e-5);
  const auto padding = c.get<int64_t>("downsample_padding", 1);
  if (padding != 0 && padding != 1) c.refuse("downsample_padding", "0 and 1");
  u.pad_below = padding == 0;
  u.sin_first = !c.get("flip_sin_to_cos", true);
  u.frequency_shift = c.get<int64_t>("freq_shift", 0);
  if (u.frequency_shift != 0 && u.frequency_shift != 1) c.refuse("freq_shift", "0 and 1");
  read_levels(c, u);
  read_attention(c, u);
  return u;
}

namespace {

/// Returns how the attention is split: "heads" or "head_channels" and their number, or "heads_per_level" if levels have neither in common.
Pair heads_of(const DiffusersUnet& u) {
  bool same_heads = true, same_width = true;
  int64_t first = -1;  // of the levels with heads
  for (size_t i = 0; i < u.channels.size(); ++i) {
    if (!attends(u, i)) continue;
    if (first < 0) first = int64_t(i);
    same_heads = same_heads && u.heads[i] == u.heads[size_t(first)];
    same_width = same_width && u.channels[i] * u.heads[size_t(first)] == u.channels[size_t(first)] * u.heads[i];
  }
  const size_t f = size_t(std::max<int64_t>(0, first));
  if (!same_heads && !same_width) return {"heads_per_level", u.heads};
  if (same_heads) return {"heads", u.heads[f]};
  return {"head_channels", u.channels[f] / u.heads[f]};
}

}  // namespace

std::vector<int64_t> DiffusersUnet::only_cross_levels() const {
  std::vector<int64_t> levels;
  for (size_t i = 0; i < only_cross.size(); ++i)
    if (only_cross[i] && attention[i]) levels.push_back(int64_t(i));
  return levels;
}

Value DiffusersUnet::options() const {
  std::vector<double> multipliers;
  std::vector<int64_t> heights;
  for (size_t i = 0; i < channels.size(); ++i) {
    multipliers.push_back(double(channels[i]) / double(channels[0]));
    if (attention[i]) heights.push_back(height >> i);
  }
  Value unet = plugin_of("unet", {{"channels", channels[0]},
                                  {"multipliers", multipliers},
                                  {"blocks", blocks},
                                  {"attention_resolutions", heights},
                                  {"middle_attention", middle_attention},
                                  heads_of(*this),
                                  {"scale_shift", scale_shift},
                                  {"groups", groups},
                                  {"dropout", dropout},
                                  {"attention_order", "new"}});
  if (norm_eps != 1e-5) unet.set("norm_eps", value_of(norm_eps));
  if (residual_resampling)
    unet.set("resampling", value_of("residual"));
  else if (pad_below)
    unet.set("downsample_padding", value_of("below"));
  if (number) unet.set("class_embedding", value_of("sinusoidal"));
  if (added_width > 0) unet.set("size_channels", value_of(size_channels));
  if (guidance_channels > 0) unet.set("guidance_channels", value_of(guidance_channels));
  if (sin_first || frequency_shift != 0 || !noise_embedding.entries.empty()) {
    Value embedding = plugin_of("sinusoidal", {{"sin_first", sin_first}, {"shift", frequency_shift}});
    for (const Value::Entry& e : noise_embedding.entries) embedding.set(e.key, e.value);
    unet.set("noise_embedding", embedding);
  }
  if (!transformer()) return unet;
  Value blocks_of = map_of({{"depth", depth}, {"projection", linear_projection ? "linear" : "conv"}});
  if (const auto levels = only_cross_levels(); !levels.empty()) blocks_of.set("only_cross_attention", value_of(levels));
  unet.set("transformer", blocks_of);
  return unet;
}

NamedTensors DiffusersUnet::tensors(const NamedTensors& diffusers) const {
  using Resampling = UnetModules::Resampling;
  for (const NamedTensor& t : diffusers)
    if (added_width == 0 && t.name.starts_with("add_embedding.")) throw ConfigError(fmt::format("no place is known for {}", t.name));
  return from_diffusers_unet(
      diffusers, {blocks, attention, middle_attention, transformer(), residual_resampling ? Resampling::residual : Resampling::conv});
}

}  // namespace brume
