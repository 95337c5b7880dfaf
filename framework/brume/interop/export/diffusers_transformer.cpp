#include "brume/interop/export/diffusers_transformer.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/tree.h"
#include "brume/interop/export/diffusers_text.h"
#include "brume/interop/layouts/sections.h"
#include "brume/interop/layouts/transformer_names.h"
#include "brume/weights/model_weights.h"

namespace brume {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* version = "0.31.0";  ///< of diffusers, whose keys these are

/// An encoder of the words, and where its tensors are.
struct Encoder {
  Value options;
  std::string prefix;
};

struct TransformerExport {
  const Partial& out;
  const Contents& model;
  const Value& options;
  int64_t size;
  const std::string& source;
  Value network = part_of(options, "network");
  NamedTensors tensors = below(model.tensors, "network.");
  TransformerDirectory made{};

  [[noreturn]] void refuse(const std::string& what) const { throw ConfigError(fmt::format("{}: {}", source, what)); }
  bool mmdit() const { return text_of(network, "type") == "mmdit"; }
  bool single() const { return text_of(network, "modulation") == "single"; }  // PixArt
  bool flux() const { return mmdit() && integer_of(network, "single_depth") > 0; }
  int64_t width() const { return integer_of(network, "width"); }
  int64_t depth() const { return integer_of(network, "depth"); }

  /// Throws ConfigError if the network has another value.
  void only(const char* key, const std::string& wanted, const char* name) const {
    const std::string have = text_of(network, key);
    if (!have.empty() && have != wanted) refuse(fmt::format("network.{} is {}; diffusers' {} has {}", key, have, name, wanted));
  }
  double number(const char* key, double otherwise) const {
    const std::string have = text_of(network, key);
    return have.empty() || have == "null" ? otherwise : number_of(network, key);
  }
  int64_t size_of(const char* name, int64_t dim) const {
    const at::Tensor* t = find(tensors, name);
    if (!t || t->dim() <= dim) refuse(fmt::format("has no tensor 'network.{}' of {}", name, counted(dim + 1, "dimension")));
    return t->size(dim);
  }

  json common(const char* type) const {
    return json{{"_class_name", type},
                {"_diffusers_version", version},
                {"attention_head_dim", width() / std::max<int64_t>(1, integer_of(network, "heads"))},
                {"num_attention_heads", integer_of(network, "heads")},
                {"num_layers", depth()}};
  }

  /// Returns what DiT's and PixArt's classes share.
  json dit_config(const char* type) const {
    for (const auto& [key, wanted] : {std::pair("rotary", "false"),
                                      {"qk_norm", "false"},
                                      {"norm", "layer"},
                                      {"activation", "gelu"},
                                      {"positions", "sine"},
                                      {"long_skips", "false"},
                                      {"tokens", "cross_attention"},
                                      {"slices", "1"},
                                      {"patch_height", "null"},
                                      {"mlp_ratio", "4"}})
      only(key, wanted, type);
    const int64_t patch = integer_of(network, "patch");
    json c = common(type);
    c["activation_fn"] = "gelu-approximate", c["attention_bias"] = true, c["norm_elementwise_affine"] = false;
    c["dropout"] = number_of(network, "dropout");
    c["in_channels"] = size_of("x_embedder.proj.weight", 1);
    c["out_channels"] = size_of("final_layer.linear.weight", 0) / (patch * patch);
    c["patch_size"] = patch, c["sample_size"] = size;
    c["norm_num_groups"] = 32, c["upcast_attention"] = false;
    return c;
  }

  json class_transformer() {
    constexpr const char* type = "DiTTransformer2DModel";
    only("position_scale", "1", type);
    const Value labels = part_of(options, "conditioner"), level = part_of(network, "noise_embedding");
    if (text_of(labels, "type") != "class_label" || number_of(labels, "dropout") == 0)
      refuse(fmt::format("its conditioner is '{}'; diffusers' {} takes a class_label with a null class (dropout)", text_of(labels, "type"),
                         type));
    if (integer_of(level, "shift") != 1)
      made.notes.emplace_back("how the network receives the noise level (noise_embedding.shift is not 1): diffusers has other frequencies");
    json c = dit_config(type);
    c["norm_type"] = "ada_norm_zero";
    c["norm_eps"] = number("mlp_norm_eps", number("norm_eps", 1e-6));
    c["num_embeds_ada_norm"] = size_of("y_embedder.embedding_table.weight", 0) - 1;
    made.pipeline_name = "DiTPipeline";
    return c;
  }

  json word_transformer() {
    constexpr const char* type = "PixArtTransformer2DModel";
    json c = dit_config(type);
    c["norm_type"] = "ada_norm_single", c["norm_eps"] = number("norm_eps", 1e-6);
    c["attention_type"] = "default", c["num_embeds_ada_norm"] = 1000;
    c["caption_channels"] = size_of("y_embedder.y_proj.fc1.weight", 1), c["cross_attention_dim"] = width();
    c["interpolation_scale"] = number("position_scale", 1);
    c["use_additional_conditions"] = find(tensors, "csize_embedder.mlp.0.weight") != nullptr;
    const std::vector<Encoder> words = encoders();
    made.pipeline_name = !words.empty() && integer_of(words[0].options, "length") == 300 ? "PixArtSigmaPipeline" : "PixArtAlphaPipeline";
    return c;
  }

  std::vector<int64_t> integers(const char* key) const {
    std::vector<int64_t> all;
    for (const std::string& text : list_of(network, key)) all.push_back(parse_number<int64_t>(text).value_or(0));
    return all;
  }

  json joint_transformer() {
    const char* type = flux() ? "FluxTransformer2DModel" : "SD3Transformer2DModel";
    only("mlp_ratio", "4", type);
    json c = common(type);
    const int64_t in = size_of("x_embedder.proj.weight", 1), patch = integer_of(network, "patch");
    c["joint_attention_dim"] = size_of("context_embedder.weight", 1), c["pooled_projection_dim"] = size_of("y_embedder.mlp.0.weight", 1);
    if (flux()) {
      only("qk_norm", "true", type), only("patch", "2", type);
      c["in_channels"] = c["out_channels"] = in * patch * patch, c["patch_size"] = 1;
      c["num_single_layers"] = integer_of(network, "single_depth"), c["axes_dims_rope"] = integers("rotary_axes");
      c["guidance_embeds"] = find(tensors, "g_embedder.mlp.0.weight") != nullptr;
      made.pipeline_name = "FluxPipeline";
      return c;
    }
    if (integer_of(network, "position_size") == 0)
      refuse(fmt::format("network.position_size is 0; diffusers' {} has a table of them", type));
    c["in_channels"] = c["out_channels"] = in, c["patch_size"] = patch, c["sample_size"] = size;
    c["caption_projection_dim"] = width(), c["pos_embed_max_size"] = integer_of(network, "position_size");
    c["dual_attention_layers"] = integers("dual_blocks");
    c["qk_norm"] = truth_of(network, "qk_norm") ? json("rms_norm") : json();
    made.pipeline_name = "StableDiffusion3Pipeline";
    return c;
  }

  /// Returns the tensors under diffusers' names.
  NamedTensors renamed() const {
    if (mmdit()) {
      const int64_t singles = integer_of(network, "single_depth"), in = size_of("x_embedder.proj.weight", 1);
      NamedTensors ours = tensors;
      for (NamedTensor& t : ours) {
        if (mmdit_swaps(t.name, depth(), singles)) t.tensor = swapped_halves(t.tensor);
        if (flux()) t.tensor = to_flux_layout(t.name, t.tensor, {in, in, integer_of(network, "patch")});
      }
      return split_layers(ours, mmdit_names(flux(), depth(), singles, integers("dual_blocks")), width(), source);
    }
    if (single()) return split_layers(tensors, pixart_names(depth()), width(), source);
    NamedTensors all;
    for (const NamedTensor& t : split_layers(tensors, dit_names(depth()), width(), source)) {
      const int64_t times = t.name.starts_with(dit_embedders) ? depth() : 0;  // each block repeats these
      if (times == 0) all.push_back(t);
      for (int64_t i = 0; i < times; ++i) all.push_back({fmt::format("transformer_blocks.{}.{}", i, t.name), t.tensor});
    }
    return all;
  }

  /// Returns the encoders of words, with the prefixes of their tensors; none of a model of classes.
  std::vector<Encoder> encoders() const {
    Value words = part_of(options, "conditioner");
    std::string prefix = "conditioner.";
    const auto first = [](const Value& v) { return v.find("of")->items.front(); };
    if (text_of(words, "type") == "composite") words = first(words), prefix += "0.";
    if (text_of(words, "type") != "joint_text")
      return text_of(words, "type") == "t5" ? std::vector<Encoder>{{words, prefix}} : std::vector<Encoder>{};
    std::vector<Encoder> all;
    for (const Value& one : words.find("of")->items) all.push_back({one, fmt::format("{}{}.", prefix, all.size())});
    return all;
  }

  void keep_files(const std::string& folder, const fs::path& of) {
    for (const auto& [path, bytes] : files_in(model.tensors))
      if (!made.files.find(path) && (path == of.string() || fs::path(path).parent_path() == of))
        made.files.set(path, Value::text(fmt::format("{}/{}", folder, fs::path(path).filename().string()), true));
  }

  void t5(const Encoder& e, const std::string& ending) {
    const Value& o = e.options;
    const std::string folder = "text_encoder" + ending, tokenizer = "tokenizer" + ending, pieces = text_of(o, "tokenizer");
    const Files kept = files_in(model.tensors);
    const NamedTensors weights = below(model.tensors, e.prefix);
    const at::Tensor* rows = find(weights, "shared.weight");
    if (!kept.contains(pieces) || !rows) refuse(fmt::format("has no file '{}' or no '{}shared.weight', of T5", pieces, e.prefix));
    const bool gated = text_of(o, "feed_forward") != "relu";
    out.config(folder + "/config.json", {{"architectures", {"T5EncoderModel"}},
                                         {"d_ff", integer_of(o, "mlp")},
                                         {"d_kv", integer_of(o, "head_width")},
                                         {"d_model", integer_of(o, "width")},
                                         {"dense_act_fn", gated ? "gelu_new" : "relu"},
                                         {"eos_token_id", 1},
                                         {"feed_forward_proj", gated ? "gated-gelu" : "relu"},
                                         {"is_encoder_decoder", true},
                                         {"is_gated_act", gated},
                                         {"layer_norm_epsilon", 1e-6},
                                         {"model_type", "t5"},
                                         {"num_heads", integer_of(o, "heads")},
                                         {"num_layers", integer_of(o, "depth")},
                                         {"pad_token_id", 0},
                                         {"relative_attention_max_distance", 128},
                                         {"relative_attention_num_buckets", 32},
                                         {"tie_word_embeddings", false},
                                         {"vocab_size", rows->size(0)}});
    out.tensors(folder + "/model.safetensors", weights);
    out.file(tokenizer + "/spiece.model", kept.at(pieces));
    out.config(tokenizer + "/tokenizer_config.json", {{"eos_token", "</s>"},
                                                      {"extra_ids", 0},
                                                      {"legacy", true},
                                                      {"model_max_length", integer_of(o, "length")},
                                                      {"pad_token", "<pad>"},
                                                      {"tokenizer_class", "T5Tokenizer"},
                                                      {"unk_token", "<unk>"}});
    keep_files(tokenizer, fs::path(pieces));
    made.index["text_encoder" + ending] = {"transformers", "T5EncoderModel"};
    made.index["tokenizer" + ending] = {"transformers", "T5Tokenizer"};
  }

  void clip(Encoder e, const std::string& ending) {
    NamedTensors weights = below(model.tensors, e.prefix);
    if (flux()) {  // the end token itself: brume's projection is the identity
      const at::Tensor* projection = find(weights, "text_projection.weight");
      if (projection && !at::equal(projection->to(at::kFloat), at::eye(projection->size(0), at::TensorOptions().dtype(at::kFloat))))
        refuse("its text encoder has a projection; that of diffusers' FluxPipeline has none");
      std::erase_if(weights, [](const NamedTensor& t) { return t.name == "text_projection.weight"; });
      e.options.set("projection", value_of(0));
    }
    write_diffusers_text(out, {e.options, e.prefix, ending}, weights, files_in(model.tensors), source);
    keep_files("tokenizer" + ending, fs::path(text_of(e.options, "tokenizer")));
    made.index["text_encoder" + ending] = {"transformers", flux() ? "CLIPTextModel" : "CLIPTextModelWithProjection"};
    made.index["tokenizer" + ending] = {"transformers", "CLIPTokenizer"};
  }

  /// Returns true if every encoder has its weights.
  bool complete(const std::vector<Encoder>& all) const {
    if (all.empty()) return !mmdit() && !single();
    const size_t wanted = flux() ? 2 : mmdit() ? 3 : 1;
    return all.size() == wanted && std::all_of(all.begin(), all.end(), [&](const Encoder& e) {
             return std::any_of(model.tensors.begin(), model.tensors.end(),
                                [&](const NamedTensor& t) { return t.name.starts_with(e.prefix); });
           });
  }

  void write(bool stage) {
    const std::vector<Encoder> words = encoders();
    const bool whole = complete(words), encodes = std::any_of(model.tensors.begin(), model.tensors.end(),
                                                              [](const NamedTensor&t) { return t.name.starts_with("conditioner."); });
    if (stage && !whole) refuse("has a first stage and no weights of its text encoders; diffusers' pipelines have both");
    if (!stage && encodes) refuse("has text encoders and no first stage; diffusers' pipelines have both");
    made.pipeline = stage;
    const json config = mmdit() ? joint_transformer() : single() ? word_transformer() : class_transformer();
    const std::string folder = made.pipeline ? "transformer/" : "";
    out.config(folder + "config.json", config);
    out.tensors(folder + "diffusion_pytorch_model.safetensors", renamed());
    if (!made.pipeline) {
      made.notes.emplace_back("first stage, text encoders, noise schedule and sampler: a transformer alone has none");
      return;
    }
    made.index["transformer"] = {"diffusers", config["_class_name"]};
    for (size_t i = 0; i < words.size(); ++i) {
      const std::string ending = i == 0 ? "" : fmt::format("_{}", i + 1);
      if (text_of(words[i].options, "type") == "t5")
        t5(words[i], ending);
      else
        clip(words[i], ending);
    }
  }
};

}  // namespace

bool is_transformer(const Value& network) {
  const std::string type = text_of(network, "type");
  return type == "dit" || type == "mmdit";
}

TransformerDirectory write_diffusers_transformer(const Partial& out, const Contents& model, const Value& options, int64_t size, bool stage,
                                                 const std::string& source) {
  TransformerExport e{out, model, options, size, source};
  e.write(stage);
  return std::move(e.made);
}

}  // namespace brume
