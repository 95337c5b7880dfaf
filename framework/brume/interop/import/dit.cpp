// Diffusion transformers of their authors' programs: DiT (Peebles & Xie 2023), SiT (Ma et al. 2024), LightningDiT (Yao & Wang 2025) and
// PixArt (Chen et al. 2024), a state dict or a training file (its averaged weights). brume's `dit` has DiT's names. Shapes tell the
// architecture except the heads; DiT and SiT have the same names and shapes and mean different things by them:
//
//   program    process                      the network receives    and gives
//   dit        linear betas, 1000 steps     the timestep            the noise, and a variance if learn_sigma
//   sit        x = t image + (1 - t) noise  t                       the velocity image - noise; a second half is dropped
//
// PixArt is trained as DiT is, with words instead of classes.
//
// The first stage is in no such file: vae=DIRECTORY names a diffusers AutoencoderKL, which the imported model then holds; so does
// t5=DIRECTORY with PixArt's text encoder, a T5EncoderModel with its spiece.model.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "brume/config/counted.h"
#include "brume/config/tree.h"
#include "brume/config/utf8.h"
#include "brume/interop/import/diffusers_parts.h"
#include "brume/interop/import/families.h"
#include "brume/interop/import/flags.h"
#include "brume/interop/import/t5.h"

namespace brume {
namespace {

const std::vector<std::string> flag_names{"program",     "model", "cls",       "input_size", "patch_size",         "in_channels",
                                          "hidden_size", "depth", "num_heads", "mlp_ratio",  "class_dropout_prob", "num_classes",
                                          "learn_sigma", "vae",   "t5",        "pred_sigma", "model_max_length"};

/// The architecture, as names and shapes tell it.
struct Shape {
  int64_t width = 0, patch = 0, in = 0, out = 0, depth = 0, mlp = 0, rows = 0, side = 0;
  int64_t words = 0;          ///< channels of the tokens that it attends to; 0 = none
  double position_scale = 1;  ///< of the sines
  bool swiglu = false, rms = false, qk_norm = false, rotary = false, sine = true, single = false, sizes = false;
};

class Weights {
 public:
  explicit Weights(const Source& source) : source_(source) {}
  bool has(const std::string& name) const { return find(source_.tensors, name) != nullptr; }
  const at::Tensor& get(const std::string& name, int64_t dims) const {
    const at::Tensor* t = find(source_.tensors, name);
    if (!t) throw ConfigError(fmt::format("{}: looks like a DiT, but has no tensor '{}'", file(), name));
    if (t->dim() != dims || t->numel() == 0)
      throw ConfigError(fmt::format("{}: '{}' has {}, and in a DiT {}", file(), name, counted(t->dim(), "dimension"), dims));
    return *t;
  }
  /// Throws ConfigError if a matrix is not of this shape: a network of other widths than the file's may be larger than the memory.
  void expect(const std::string& name, int64_t rows, int64_t columns) const {
    const at::Tensor& t = get(name, 2);
    if (t.size(0) != rows || t.size(1) != columns)
      throw ConfigError(fmt::format("{}: '{}' is {}x{}, and {}x{} is expected", file(), name, t.size(0), t.size(1), rows, columns));
  }
  std::string file() const { return source_.path.filename().string(); }

 private:
  const Source& source_;
};

/// Returns what divides the positions of a table of fixed sines and cosines; nothing if the table is another one. The first frequency of
/// column and row is 1.
std::optional<double> sine_scale(const at::Tensor& table, int64_t side) {
  const at::Tensor t = table.to(at::kFloat).contiguous();
  const int64_t width = t.size(2);
  const float* values = t.data_ptr<float>();
  double step = 1;  // the angle of the second column
  if (side > 1) step = std::atan2(double(values[width]), double(values[width + width / 4]));
  if (step <= 0) return {};
  for (int64_t i = 0; i < t.size(1); ++i, values += width)
    if (std::abs(values[0] - std::sin(step * double(i % side))) > 1e-3 ||
        std::abs(values[width / 2] - std::sin(step * double(i / side))) > 1e-3)
      return {};
  return std::nearbyint(1e4 / step) / 1e4;
}

Shape read_shape(const Weights& w) {
  const at::Tensor &patches = w.get("x_embedder.proj.weight", 4), &positions = w.get("pos_embed", 3);
  Shape s{.width = patches.size(0), .patch = patches.size(2), .in = patches.size(1)};
  while (w.has(fmt::format("blocks.{}.attn.qkv.weight", s.depth))) ++s.depth;
  s.swiglu = w.has("blocks.0.mlp.w12.weight"), s.rms = w.has("blocks.0.norm1.weight"), s.qk_norm = w.has("blocks.0.attn.q_norm.weight");
  s.rotary = w.has("feat_rope.freqs_cos");
  s.mlp = w.get(s.swiglu ? "blocks.0.mlp.w3.weight" : "blocks.0.mlp.fc2.weight", 2).size(1);
  s.single = w.has("blocks.0.scale_shift_table"), s.sizes = w.has("csize_embedder.mlp.0.weight");
  if (w.has("y_embedder.y_proj.fc1.weight")) s.words = w.get("y_embedder.y_proj.fc1.weight", 2).size(1);
  if (w.has("y_embedder.embedding_table.weight")) s.rows = w.get("y_embedder.embedding_table.weight", 2).size(0);
  s.out = w.get("final_layer.linear.weight", 2).size(0) / (s.patch * s.patch);
  w.expect("blocks.0.attn.qkv.weight", 3 * s.width, s.width);
  w.expect(s.swiglu ? "blocks.0.mlp.w3.weight" : "blocks.0.mlp.fc2.weight", s.width, s.mlp);
  w.expect("final_layer.linear.weight", s.out * s.patch * s.patch, s.width);
  if (const int64_t biases = w.get("final_layer.linear.bias", 1).size(0); biases != s.out * s.patch * s.patch)
    throw ConfigError(fmt::format("{}: 'final_layer.linear.bias' has {}, and {} are expected", w.file(), counted(biases, "number"),
                                  s.out * s.patch * s.patch));
  s.side = std::llround(std::sqrt(double(positions.size(1))));
  if (s.side * s.side != positions.size(1) || positions.size(2) != s.width || s.width % 4)
    throw ConfigError(
        fmt::format("{}: 'pos_embed' holds {} of {}; those of a square of patches, {} each, are "
                    "expected",
                    w.file(), counted(positions.size(1), "position"), counted(positions.size(2), "channel"), counted(s.width, "channel")));
  const std::optional<double> scale = sine_scale(positions, s.side);
  s.sine = scale.has_value(), s.position_scale = scale.value_or(1);
  if (s.out != s.in && s.out != 2 * s.in)
    throw ConfigError(fmt::format("{}: takes {} and gives {}; a DiT gives as many, or twice as many with learn_sigma", w.file(),
                                  counted(s.in, "channel"), s.out));
  return s;
}

/// Throws ConfigError if the settings do not agree with the weights.
void check(const Flags& flags, const Shape& s) {
  flags.agree("hidden_size", flags.integer("hidden_size"), s.width);
  flags.agree("patch_size", flags.integer("patch_size"), s.patch);
  flags.agree("in_channels", flags.integer("in_channels"), s.in);
  flags.agree("depth", flags.integer("depth"), s.depth);
  flags.agree("input_size", flags.integer("input_size"), s.side * s.patch);
  for (const char* name : {"learn_sigma", "pred_sigma"}) flags.agree(name, flags.truth(name), s.out != s.in);
}

int64_t heads_of(const Flags& flags, const Weights& w, const Shape& s) {
  const auto given = flags.integer("num_heads");
  std::optional<int64_t> heads = given;
  if (s.qk_norm) heads = s.width / w.get("blocks.0.attn.q_norm.weight", 1).size(0);
  if (s.qk_norm) flags.agree("num_heads", given, *heads);
  static const std::map<int64_t, int64_t> published{{1152, 16}, {1024, 16}, {768, 12}, {384, 6}};  // XL, L, B, S
  if (!heads && published.contains(s.width)) heads = published.at(s.width);
  if (!heads) flags.refuse_missing("num_heads", "the heads of its attention are not to be read from the weights");
  if (*heads < 1 || s.width % *heads)
    throw ConfigError(fmt::format("{}: expected a divisor of {}, the width", flags.given("num_heads"), s.width));
  return *heads;
}

/// Returns true if a name has the word, and not within another one.
bool has_word(std::string_view name, std::string_view word) {
  const auto letter = [&](size_t i) { return i < name.size() && name[i] >= 'a' && name[i] <= 'z'; };
  for (size_t at = name.find(word); at != name.npos; at = name.find(word, at + 1))
    if (!(at > 0 && letter(at - 1)) && !letter(at + word.size())) return true;
  return false;
}

/// Returns true if it is of flow matching. Weights tell LightningDiT; of the others a setting, the name of the model, or that of the file.
bool is_flow(const Flags& flags, const Source& source, const Shape& s) {
  if (const auto program = flags.text("program")) {
    if (*program != "dit" && *program != "sit") throw ConfigError(fmt::format("{}: expected dit or sit", flags.given("program")));
    return *program == "sit";
  }
  if (s.words > 0) return false;
  if (s.swiglu || s.rms || s.rotary || s.qk_norm) return true;
  for (const std::string& text : {flags.text("cls").value_or(""), flags.text("model").value_or(""), source.path.filename().string()}) {
    const std::string name = lower_case(text);
    const bool sit = has_word(name, "sit") || has_word(name, "lightningdit"), dit = has_word(name, "dit");
    if (sit != dit) return sit;
  }
  flags.refuse_missing("program", "weights of DiT and of SiT have the same names and shapes (program=dit or program=sit)");
}

Value network_of(const Flags& flags, const Weights& w, const Shape& s) {
  const double given = flags.number("mlp_ratio").value_or(4);
  const bool fits = int64_t((s.swiglu ? 2.0 / 3 : 1.0) * double(int64_t(double(s.width) * given))) == s.mlp;
  // The middle of the ratios whose width is this one.
  const double found = (s.swiglu ? 1.5 * double(s.mlp) + 0.75 : double(s.mlp)) / double(s.width);
  Value network = plugin_of("dit", {{"patch", s.patch},
                                    {"width", s.width},
                                    {"depth", s.depth},
                                    {"heads", heads_of(flags, w, s)},
                                    {"mlp_ratio", fits ? given : found},
                                    {"positions", s.sine ? "sine" : "learned"},
                                    {"rotary", s.rotary},
                                    {"qk_norm", s.qk_norm},
                                    {"norm", s.rms ? "rms" : "layer"},
                                    {"activation", s.swiglu ? "swiglu" : "gelu"}});
  if (s.single) network.set("modulation", value_of("single"));
  if (s.position_scale != 1) network.set("position_scale", value_of(s.position_scale));
  return network;
}

/// Returns the classes, and whether the last row is that of the null class.
Value conditioner_of(const Flags& flags, const Shape& s, bool& null) {
  const auto classes = flags.integer("num_classes");
  const double dropout = flags.number("class_dropout_prob").value_or(classes && *classes == s.rows ? 0 : 0.1);
  null = dropout > 0 && s.rows > 1;
  const int64_t found = s.rows - null;
  flags.agree("num_classes", classes, found);
  return s.rows > 0 ? plugin_of("class_label", {{"classes", found}, {"dropout", null ? dropout : 0}}) : value_of("none");
}

/// Returns the words as T5 encodes them, and the sizes if the network is conditioned on them; adds the encoder that t5=DIRECTORY names.
Value words_of(Imported& model, const Flags& flags, const Shape& s) {
  const T5Use use{.length = flags.integer("model_max_length").value_or(120), .mask = true};
  Value words = missing_t5(s.words, use);
  if (const auto folder = flags.text("t5")) {
    const T5Text text = read_t5(*folder, *folder, "", use);
    if (text.width != s.words)
      throw ConfigError(
          fmt::format("{}: has tokens of {}, and the network takes {}", flags.given("t5"), counted(text.width, "channel"), s.words));
    words = text.options, model.files = text.files;
    for (const NamedTensor& t : text.tensors) model.tensors.push_back({(s.sizes ? "conditioner.0." : "conditioner.") + t.name, t.tensor});
  } else {
    model.losses.emplace_back(
        "no text encoder is in the file, without which the model cannot be sampled from; t5=DIRECTORY names a "
        "T5EncoderModel with its spiece.model");
  }
  return s.sizes ? plugin_of("composite", {{"of", std::vector<Value>{words, plugin_of("image_sizes", {})}}}) : words;
}

/// Returns the guidance: both programs guide the first three channels only.
Value guidance_of(const Shape& s, bool null) {
  if (s.words > 0) return Value::list({plugin_of("cfg", {{"scale", 4.5}})});
  if (!null) return Value::list({});
  Value cfg = plugin_of("cfg", {{"scale", 4}});
  if (s.in > 3) cfg.set("channels", value_of(3));
  return Value::list({cfg});
}

/// Leaves out the rows of the last layer for the second half of the channels, which SiT drops.
at::Tensor without_variance(const at::Tensor& rows, const Shape& s) {
  const int64_t squares = s.patch * s.patch;
  std::vector<int64_t> sizes = rows.sizes().vec();
  sizes[0] = squares * s.in;
  return rows.reshape({squares, s.out, -1}).narrow(1, 0, s.in).reshape(sizes);
}

void add_tensors(Imported& model, const Source& source, const Shape& s, bool flow) {
  for (const NamedTensor& t : source.tensors) {
    if ((t.name == "pos_embed" && s.sine) || t.name.starts_with("feat_rope.")) continue;  // computed here
    if (t.name == "y_embedder.y_embedding") {
      model.losses.push_back(t.name + ", the null condition of its training: the encoded empty prompt is taken instead, as diffusers does");
      continue;
    }
    const bool last = t.name.starts_with("final_layer.linear.");
    if (t.name.starts_with("projectors."))
      model.losses.push_back(fmt::format("{}: only training with REPA uses it", t.name));
    else
      model.tensors.push_back({"network." + t.name, last && flow && s.out != s.in ? without_variance(t.tensor, s) : t.tensor});
  }
  if (flow && s.out != s.in) model.losses.emplace_back("the second half of the output's channels, which SiT does not use");
}

/// Sets the image and the first stage.
void set_stage(Imported& model, Value& options, const Flags& flags, const Shape& s) {
  const int64_t side = s.side * s.patch;
  const auto vae = flags.text("vae");
  if (!vae) {
    options.set("image", image_of(s.in, side, side));
    if (s.in != 1 && s.in != 3)
      model.losses.push_back(
          fmt::format("no first stage is in the file, so that the model makes latents of {}; "
                      "vae=DIRECTORY names a diffusers AutoencoderKL",
                      counted(s.in, "channel")));
    return;
  }
  const DiffusersStage stage = read_diffusers_stage(*vae, "", side);
  if (stage.latent_channels != s.in)
    throw ConfigError(fmt::format("{}: has latents of {}, and the network takes {}", flags.given("vae"),
                                  counted(stage.latent_channels, "channel"), s.in));
  options.set("image", image_of(stage.channels, side * stage.ratio, side * stage.ratio));
  options.set("autoencoder", stage.options);
  for (const NamedTensor& t : stage.tensors) model.tensors.push_back({"autoencoder." + t.name, t.tensor});
}

bool knows(const Source& source) {
  const auto has = [&](const char* name) { return find(source.tensors, name) != nullptr; };
  return has("x_embedder.proj.weight") && has("t_embedder.mlp.0.weight") && has("blocks.0.attn.qkv.weight") &&
         has("final_layer.linear.weight");
}

Imported import_dit(const Source& source, const ImportOptions& options) {
  const Flags flags(source, options, flag_names);
  const Weights weights(source);
  const Shape shape = read_shape(weights);
  check(flags, shape);
  const bool flow = is_flow(flags, source, shape);
  bool null = false;
  Imported model;
  Value all = Value::map();
  set_stage(model, all, flags, shape);
  all.set("network", network_of(flags, weights, shape));
  all.set("conditioner", shape.words > 0 ? words_of(model, flags, shape) : conditioner_of(flags, shape, null));
  all.set("noise", flow ? plugin_of("flow", {{"timestep", "image"}, {"timestep_scale", 1}}) : value_of("linear"));
  all.set("parameterization", flow ? plugin_of("flow", {{"direction", "to_image"}}) : value_of("eps"));
  all.set("variance", value_of(!flow && shape.out != shape.in ? "learned_range" : "none"));
  model.options = section_of(all, source.path.string());
  const char* variance = shape.out != shape.in ? "learned_range" : "large";
  Value sample = flow ? map_of({{"sampler", plugin_of("heun", {{"time", "flow"}, {"scale", "flow"}})},
                                {"spacing", plugin_of("flow", {{"s_min", 0}, {"inclusive", false}})},
                                {"steps", 50}})
                      : map_of({{"sampler", plugin_of("ddpm", {{"variance", variance}})}, {"spacing", "linspace"}, {"steps", 250}});
  if (shape.words > 0) sample = map_of({{"sampler", "dpmpp_multistep"}, {"spacing", "linspace"}, {"steps", 20}});
  sample.set("guidance", guidance_of(shape, null));
  model.sample = section_of(sample, source.path.string());
  add_tensors(model, source, shape, flow);
  return model;
}

}  // namespace

const Family diffusion_transformer{"DiT, SiT, LightningDiT or PixArt network", knows, import_dit};

}  // namespace brume
