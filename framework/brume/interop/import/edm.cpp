// The networks of NVlabs/edm (Karras et al. 2022): SongUNet (DDPM++, NCSN++) and DhariwalUNet (ADM), bare or within a preconditioning
// ("model."). The names hold the resolutions and the shapes nearly all else; what the network's input and output mean they do not:
//
//   precond   c_skip               c_out                     c_in                 c_noise
//   edm       sd^2 / (s^2 + sd^2)  s sd / sqrt(s^2 + sd^2)   1 / sqrt(s^2 + sd^2) log(s) / 4
//   vp        1                    -s                        1 / sqrt(s^2 + 1)    (M - 1) t(s)
//   ve        1                    s                         1                    log(s / 2)
//   iddpm     1                    -s                        1 / sqrt(s^2 + 1)    the timestep, and twice the channels
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
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

const std::vector<std::string> flag_names{"model",
                                          "precond",
                                          "class",
                                          "class_name",
                                          "model_type",
                                          "img_resolution",
                                          "img_channels",
                                          "label_dim",
                                          "augment_dim",
                                          "model_channels",
                                          "channel_mult",
                                          "channel_mult_emb",
                                          "num_blocks",
                                          "attn_resolutions",
                                          "dropout",
                                          "label_dropout",
                                          "embedding_type",
                                          "channel_mult_noise",
                                          "encoder_type",
                                          "decoder_type",
                                          "resample_filter",
                                          "sigma_data",
                                          "sigma_min",
                                          "sigma_max",
                                          "beta_d",
                                          "beta_min",
                                          "epsilon_t",
                                          "M",
                                          "C_1",
                                          "C_2",
                                          "use_fp16"};

/// The network, as far as names and shapes tell.
struct Network {
  bool song = true;
  std::vector<int64_t> heights;  ///< of the levels
  int64_t channels = 0, embedding = 0, noise = 0, blocks = 0, in = 0, out = 0, classes = 0;
  std::vector<int64_t> multipliers, attention;
  std::string encoder = "standard", decoder = "standard", embedding_type = "positional";
  std::vector<double> filter;  ///< empty: no buffer tells
};

/// The tensors of the network by their names within it.
class Weights {
 public:
  explicit Weights(const Source& source) : file_(source.path.filename().string()) {
    const std::string prefix = find(source.tensors, "model.map_layer0.weight") ? "model." : "";
    for (const NamedTensor& t : source.tensors)
      if (t.name.starts_with(prefix))
        tensors_.push_back({t.name.substr(prefix.size()), t.tensor});
      else
        others_.push_back(t.name);
  }
  const NamedTensors& tensors() const { return tensors_; }
  const std::vector<std::string>& others() const { return others_; }
  bool has(const std::string& name) const { return find(tensors_, name) != nullptr; }
  int64_t size(const std::string& name, int64_t dim) const {
    const at::Tensor* t = find(tensors_, name);
    if (!t || t->dim() <= dim) throw ConfigError(fmt::format("{}: looks like a network of EDM, but has no tensor '{}'", file_, name));
    return t->size(dim);
  }
  int64_t multiple(const std::string& name, int64_t dim, int64_t of) const {
    const int64_t n = size(name, dim);
    if (of < 1 || n < of || n % of)
      throw ConfigError(fmt::format("{}: '{}' has {}, no multiple of the model's {}", file_, name, counted(n, "channel"), of));
    return n / of;
  }

 private:
  std::string file_;
  NamedTensors tensors_;
  std::vector<std::string> others_;
};

std::string at_height(const char* half, int64_t height, const std::string& what) {
  return fmt::format("{0}.{1}x{1}_{2}", half, height, what);
}

/// Returns the heights in the names "enc.32x32_…", falling.
std::vector<int64_t> heights_of(const Weights& w) {
  std::set<int64_t, std::greater<>> heights;
  for (const NamedTensor& t : w.tensors()) {
    std::string_view name(t.name);
    if (!name.starts_with("enc.")) continue;
    name.remove_prefix(4);
    if (const auto height = take_number<int64_t>(name)) heights.insert(*height);
  }
  return {heights.begin(), heights.end()};
}

/// Returns the taps of a filter that is kept as their outer product, the smallest being 1.
std::vector<double> taps_of(const Weights& w) {
  for (const NamedTensor& t : w.tensors()) {
    if (!t.name.ends_with(".resample_filter") || t.tensor.dim() != 4) continue;
    const at::Tensor sums = t.tensor.to(at::kDouble).sum(at::IntArrayRef{0, 1, 2}).contiguous();
    std::vector<double> taps(sums.data_ptr<double>(), sums.data_ptr<double>() + sums.numel());
    const double least = *std::min_element(taps.begin(), taps.end());
    for (double& tap : taps) tap = least > 0 ? std::round(tap / least * 1e4) / 1e4 : tap;
    return taps;
  }
  return {};
}

Network read_network(const Weights& w) {
  Network n;
  n.song = !w.has("out_conv.weight");
  n.heights = heights_of(w);
  if (n.heights.empty()) w.size("enc.…", 0);
  const int64_t whole = n.heights.front(), lowest = n.heights.back();
  const std::string first = at_height("enc", whole, "conv.weight");
  n.in = w.size(first, 1);
  n.channels = n.song ? w.size(first, 0) : w.size("map_layer0.weight", 1);
  n.out = w.size(n.song ? at_height("dec", whole, "aux_conv.weight") : "out_conv.weight", 0);
  n.embedding = w.multiple("map_layer0.weight", 0, n.channels);
  n.noise = w.multiple("map_layer0.weight", 1, n.channels);
  while (w.has(at_height("enc", whole, fmt::format("block{}.conv0.weight", n.blocks)))) ++n.blocks;
  for (const int64_t height : n.heights) {
    n.multipliers.push_back(w.multiple(at_height("enc", height, "block0.conv0.weight"), 0, n.channels));
    if (w.has(at_height("enc", height, "block0.qkv.weight"))) n.attention.push_back(height);
  }
  if (w.has("map_label.weight")) n.classes = w.size("map_label.weight", 1);
  if (w.has("map_noise.freqs")) n.embedding_type = "fourier";
  if (n.heights.size() > 1) {
    if (w.has(at_height("enc", lowest, "aux_skip.weight"))) n.encoder = "skip";
    if (w.has(at_height("enc", lowest, "aux_residual.weight"))) n.encoder = "residual";
    if (n.song && w.has(at_height("dec", lowest, "aux_conv.weight"))) n.decoder = "skip";
  }
  n.filter = taps_of(w);
  return n;
}

std::vector<double> doubles(const std::vector<int64_t>& values) { return {values.begin(), values.end()}; }

/// Throws ConfigError if the settings do not agree with the weights.
void check(const Flags& flags, const Network& n) {
  using std::optional;
  flags.agree("img_resolution", flags.integer("img_resolution"), n.heights.front());
  flags.agree("model_channels", flags.integer("model_channels"), n.channels);
  flags.agree("num_blocks", flags.integer("num_blocks"), n.blocks);
  flags.agree("label_dim", flags.integer("label_dim"), n.classes);
  flags.agree("channel_mult", flags.list("channel_mult"), doubles(n.multipliers));
  flags.agree("channel_mult_emb", flags.integer("channel_mult_emb"), n.embedding);
  flags.agree("embedding_type", flags.text("embedding_type"), n.embedding_type);
  if (n.song) {
    flags.agree("channel_mult_noise", flags.integer("channel_mult_noise"), n.noise);
    if (n.heights.size() > 1) {  // one level has neither
      flags.agree("encoder_type", flags.text("encoder_type"), n.encoder);
      flags.agree("decoder_type", flags.text("decoder_type"), n.decoder);
    }
  }
  if (const auto model = flags.text("model")) {
    if (*model != "DDPMpp" && *model != "NCSNpp" && *model != "ADM")
      throw ConfigError(fmt::format("{}: expected DDPMpp, NCSNpp or ADM", flags.given("model")));
    flags.agree("model", model, std::string(!n.song ? "ADM" : n.embedding_type == "fourier" ? "NCSNpp" : "DDPMpp"));
  }
  if (const auto type = flags.text("model_type")) flags.agree("model_type", type, std::string(n.song ? "SongUNet" : "DhariwalUNet"));
}

/// Throws ConfigError if the network has a filter that its kind has no option for.
void check_filter(const Source& source, const Network& n) {
  if (!n.song && !n.filter.empty() && n.filter != std::vector<double>{1, 1})
    throw ConfigError(fmt::format("{}: its resample_filter is [{}]; dhariwal_unet supports [1, 1] only", source.path.filename().string(),
                                  fmt::join(n.filter, ", ")));
}

std::vector<double> filter_of(const Flags& flags, const Network& n) {
  const auto given = flags.list("resample_filter");
  if (!n.filter.empty()) {
    if (n.song) flags.agree("resample_filter", given, n.filter);
    return n.filter;
  }
  if (given) return *given;
  if (n.heights.size() == 1 || !n.song || flags.text("model") == "DDPMpp") return {1, 1};
  if (flags.text("model") == "NCSNpp") return {1, 3, 3, 1};
  flags.refuse_missing("resample_filter", "its buffers are missing, so the filter between resolutions ([1,1] or [1,3,3,1]) is not known");
}

std::string precond_of(const Flags& flags, const Network& n) {
  const std::vector<std::string> all{"edm", "vp", "ve", "iddpm"};
  for (const char* name : {"precond", "class", "class_name"}) {
    auto given = flags.text(name);
    if (!given) continue;
    given = lower_case(*given);
    std::string word = given->substr(given->rfind('.') + 1);  // "training.networks.EDMPrecond"
    if (word.ends_with("precond")) word.erase(word.size() - 7);
    if (std::find(all.begin(), all.end(), word) != all.end()) return word;
    if (std::string_view(name) == "precond") throw ConfigError(fmt::format("{}: expected edm, vp, ve or iddpm", flags.given(name)));
  }
  return n.out == 2 * n.in ? "iddpm" : "edm";
}

/// The parts of the model and the way it samples that a preconditioning comes to.
struct Meaning {
  Value noise, parameterization, label, grid, variance = value_of("none");
};

Meaning meaning_of(const Flags& flags, const std::string& precond) {
  if (precond == "edm")
    return {value_of("edm"), plugin_of("edm", {{"sigma_data", flags.number("sigma_data").value_or(0.5)}}), value_of("edm"),
            value_of("karras")};
  if (precond == "vp") {
    const double least = flags.number("beta_min").value_or(0.1), most = least + flags.number("beta_d").value_or(19.9);
    const double epsilon = flags.number("epsilon_t").value_or(1e-5), last = flags.number("M").value_or(1000) - 1;
    return {plugin_of("vp", {{"beta_min", least}, {"beta_max", most}, {"epsilon", epsilon}, {"timestep_scale", last}}), value_of("eps"),
            value_of("vp"), plugin_of("karras", {{"sigma_min", 0.002}, {"sigma_max", 80}})};
  }
  if (precond == "ve") {
    const double lo = flags.number("sigma_min").value_or(0.02), hi = flags.number("sigma_max").value_or(100);
    return {plugin_of("ve", {{"sigma_min", lo}, {"sigma_max", hi}}), plugin_of("eps", {{"sign", "score"}}), value_of("ve"),
            plugin_of("karras", {{"sigma_min", std::max(lo, 0.002)}, {"sigma_max", std::min(hi, 80.0)}})};
  }
  return {plugin_of("cosine", {{"timesteps", flags.integer("M").value_or(1000)},
                               {"s", flags.number("C_2").value_or(0.008)},
                               {"max_beta", 1 - flags.number("C_1").value_or(0.001)}}),
          value_of("eps"), value_of("vp"), plugin_of("karras", {{"sigma_max", 80}}), value_of("learned_range")};
}

Value network_options(const Flags& flags, const Network& n, const Meaning& meaning, bool null) {
  Value network = plugin_of(n.song ? "song_unet" : "dhariwal_unet", {{"channels", n.channels},
                                                                     {"multipliers", n.multipliers},
                                                                     {"embedding_multiplier", n.embedding},
                                                                     {"blocks", n.blocks},
                                                                     {"attention_resolutions", n.attention},
                                                                     {"dropout", flags.number("dropout").value_or(0.1)},
                                                                     {"noise_label", meaning.label},
                                                                     {"null_is_zero", null}});
  if (!n.song) return network;
  network.set("encoder", value_of(n.encoder));
  network.set("decoder", value_of(n.decoder));
  network.set("embedding_type", value_of(n.embedding_type));
  network.set("noise_multiplier", value_of(n.noise));
  network.set("resample_filter", value_of(filter_of(flags, n)));
  return network;
}

bool knows(const Source& source) {
  const auto has = [&](const std::string& name) {
    return find(source.tensors, name + "map_layer0.weight") && find(source.tensors, name + "map_layer1.weight");
  };
  return has("model.") || has("");
}

Imported import_edm(const Source& source, const ImportOptions& options) {
  const Flags flags(source, options, flag_names);
  const Weights weights(source);
  const Network n = read_network(weights);
  check(flags, n);
  check_filter(source, n);
  const std::string precond = precond_of(flags, n);
  const Meaning meaning = meaning_of(flags, precond);
  const double label_dropout = flags.number("label_dropout").value_or(0);
  const bool null = n.classes > 0 && label_dropout > 0;
  if (n.in * (meaning.variance.scalar == "none" ? 1 : 2) != n.out)
    throw ConfigError(fmt::format("{}: takes {} and gives {}, which precond={} does not", source.path.filename().string(),
                                  counted(n.in, "channel"), n.out, precond));
  Imported model;
  const Value conditioner =
      n.classes > 0 ? plugin_of("class_label", {{"classes", n.classes}, {"dropout", label_dropout}}) : value_of("none");
  model.options = section_of(map_of({{"image", image_of(n.in, n.heights.front(), n.heights.front())},
                                     {"network", network_options(flags, n, meaning, null)},
                                     {"conditioner", conditioner},
                                     {"noise", meaning.noise},
                                     {"parameterization", meaning.parameterization},
                                     {"variance", meaning.variance}}),
                             source.path.string());
  model.sample = section_of(map_of({{"sampler", "heun"}, {"spacing", meaning.grid}, {"steps", 18}}), source.path.string());
  for (const NamedTensor& t : weights.tensors()) {
    if (t.name.ends_with(".resample_filter")) continue;  // an option here
    if (t.name == "map_augment.weight")
      model.losses.push_back("map_augment.weight: only training with EDM's augmentation uses it");
    else
      model.tensors.push_back({"network." + t.name, t.tensor});
  }
  for (const std::string& name : weights.others()) {
    if (precond == "iddpm" && name == "u") continue;  // its noise levels, which the cosine schedule computes
    model.losses.push_back(fmt::format("{}: is not of the network", name));
  }
  return model;
}

}  // namespace

const Family edm_network{"EDM network", knows, import_edm};

}  // namespace brume
