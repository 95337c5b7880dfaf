// The networks of NVlabs/edm2 (Karras et al. 2024): a UNet of magnitude-preserving layers within its preconditioning. Names hold the
// resolutions and shapes all else, but for the width of the attention heads.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <set>

#include "brume/config/counted.h"
#include "brume/config/number.h"
#include "brume/config/tree.h"
#include "brume/config/utf8.h"
#include "brume/interop/import/families.h"
#include "brume/interop/import/flags.h"

namespace brume {
namespace {

const std::vector<std::string> flag_names{"img_resolution",  "img_channels",     "label_dim",         "model_channels", "channel_mult",
                                          "num_blocks",      "attn_resolutions", "channels_per_head", "sigma_data",     "label_balance",
                                          "concat_balance",  "res_balance",      "attn_balance",      "dropout",        "clip_act",
                                          "logvar_channels", "resample_filter"};

class Shapes {
 public:
  explicit Shapes(const Source& source) : source_(source) {}
  bool has(const std::string& name) const { return find(source_.tensors, name) != nullptr; }
  int64_t size(const std::string& name, int64_t dim) const {
    const at::Tensor* t = find(source_.tensors, name);
    if (!t || t->dim() <= dim || t->numel() == 0)
      throw ConfigError(fmt::format("{}: looks like a network of EDM2, but has no tensor '{}' of {}", source_.path.filename().string(),
                                    name, counted(dim + 1, "dimension")));
    return t->size(dim);
  }
  /// Returns the heights in the names "unet.enc.32x32_…", falling.
  std::vector<int64_t> heights() const {
    std::set<int64_t, std::greater<>> all;
    for (const NamedTensor& t : source_.tensors) {
      std::string_view name(t.name);
      constexpr std::string_view prefix = "unet.enc.";
      if (!name.starts_with(prefix)) continue;
      name.remove_prefix(prefix.size());
      if (const auto height = take_number<int64_t>(name)) all.insert(*height);
    }
    return {all.begin(), all.end()};
  }

 private:
  const Source& source_;
};

/// The architecture, as names and shapes tell it.
struct Network {
  std::vector<int64_t> heights, multipliers, attention;
  int64_t channels = 0, blocks = 0, in = 0, out = 0, classes = 0, noise = 0, embedding = 0, logvar = 0;
};

std::string encoder_name(int64_t height, const std::string& what) { return fmt::format("unet.enc.{0}x{0}_{1}.weight", height, what); }

Network read_network(const Shapes& s) {
  Network n;
  n.heights = s.heights();
  if (n.heights.empty()) s.size("unet.enc.…", 0);
  n.channels = s.size(encoder_name(n.heights[0], "conv"), 0), n.in = s.size(encoder_name(n.heights[0], "conv"), 1) - 1;
  n.out = s.size("unet.out_conv.weight", 0);
  n.embedding = s.size("unet.emb_noise.weight", 0), n.noise = s.size("unet.emb_noise.weight", 1);
  if (s.has("unet.emb_label.weight")) n.classes = s.size("unet.emb_label.weight", 1);
  n.logvar = s.size("logvar_linear.weight", 1);
  while (s.has(encoder_name(n.heights[0], fmt::format("block{}.conv_res0", n.blocks)))) ++n.blocks;
  for (const int64_t height : n.heights) {
    const int64_t width = s.size(encoder_name(height, "block0.conv_res0"), 0);
    if (width % n.channels)
      throw ConfigError(fmt::format("'{}' has {}, no multiple of the first level's {}", encoder_name(height, "block0.conv_res0"),
                                    counted(width, "channel"), n.channels));
    n.multipliers.push_back(width / n.channels);
    if (s.has(encoder_name(height, "block0.attn_qkv"))) n.attention.push_back(height);
  }
  return n;
}

void check(const Flags& flags, const Network& n) {
  const auto doubles = [](const std::vector<int64_t>& values) { return std::vector<double>(values.begin(), values.end()); };
  flags.agree("img_resolution", flags.integer("img_resolution"), n.heights.front());
  flags.agree("img_channels", flags.integer("img_channels"), n.in);
  flags.agree("label_dim", flags.integer("label_dim"), n.classes);
  flags.agree("model_channels", flags.integer("model_channels"), n.channels);
  flags.agree("num_blocks", flags.integer("num_blocks"), n.blocks);
  flags.agree("channel_mult", flags.list("channel_mult"), doubles(n.multipliers));
  flags.agree("logvar_channels", flags.integer("logvar_channels"), n.logvar);
}

Value network_of(const Flags& flags, const Network& n) {
  Value network = plugin_of("edm2_unet", {{"channels", n.channels},
                                          {"multipliers", n.multipliers},
                                          {"blocks", n.blocks},
                                          {"attention_resolutions", n.attention},
                                          {"head_channels", flags.integer("channels_per_head").value_or(64)},
                                          {"noise_channels", n.noise},
                                          {"embedding_channels", n.embedding},
                                          {"logvar_channels", n.logvar},
                                          {"dropout", flags.number("dropout").value_or(0)}});
  const std::vector<std::pair<const char*, const char*>> numbers{{"label_balance", "label_balance"},
                                                                 {"concat_balance", "concat_balance"},
                                                                 {"residual_balance", "res_balance"},
                                                                 {"attention_balance", "attn_balance"}};
  for (const auto& [ours, theirs] : numbers)
    if (const auto given = flags.number(theirs)) network.set(ours, value_of(*given));
  if (const auto clip = flags.text("clip_act"))  // None: no limit, which is 0 here
    network.set("clip", value_of(lower_case(*clip) == "none" ? 0 : *flags.number("clip_act")));
  if (const auto filter = flags.list("resample_filter")) network.set("resample_filter", value_of(*filter));
  return network;
}

bool knows(const Source& source) {
  const auto has = [&](const char* name) { return find(source.tensors, name) != nullptr; };
  return has("unet.emb_fourier.freqs") && has("unet.emb_noise.weight") && has("unet.out_gain");
}

Imported import_edm2(const Source& source, const ImportOptions& options) {
  const Flags flags(source, options, flag_names);
  const Network n = read_network(Shapes(source));
  check(flags, n);
  Imported model;
  const Value conditioner = n.classes > 0 ? plugin_of("class_label", {{"classes", n.classes}, {"dropout", 0}}) : value_of("none");
  model.options = section_of(map_of({{"image", image_of(n.in, n.heights[0], n.heights[0])},
                                     {"network", network_of(flags, n)},
                                     {"conditioner", conditioner},
                                     {"noise", "edm"},
                                     {"parameterization", plugin_of("edm", {{"sigma_data", flags.number("sigma_data").value_or(0.5)}})}}),
                             source.path.string());
  model.sample = section_of(map_of({{"sampler", "heun"}, {"spacing", "karras"}, {"steps", 32}}), source.path.string());
  for (const NamedTensor& t : source.tensors) {
    if (t.name.starts_with("unet.") || t.name.starts_with("logvar_"))
      model.tensors.push_back({"network." + t.name, t.tensor});
    else
      model.losses.push_back(fmt::format("{}: is not of the network", t.name));
  }
  if (n.in != 1 && n.in != 3)
    model.losses.push_back(
        fmt::format("no first stage is in the file, so that the model makes latents of {}, which EDM2 has shifted "
                    "and scaled channel by channel",
                    counted(n.in, "channel")));
  return model;
}

}  // namespace

const Family edm2_network{"EDM2 network", knows, import_edm2};

}  // namespace brume
