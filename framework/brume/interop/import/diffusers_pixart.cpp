// A diffusers directory of PixArt (Chen et al. 2024): transformer, scheduler, vae, text_encoder (T5) and tokenizer; or its transformer
// alone (PixArtTransformer2DModel, and Transformer2DModel of the first files).
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/tree.h"
#include "brume/interop/import/diffusers_scheduler.h"
#include "brume/interop/import/diffusers_transformer.h"
#include "brume/interop/import/diffusers_weights.h"
#include "brume/interop/import/families.h"
#include "brume/interop/import/t5.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

constexpr const char* sigma_pipeline = "PixArtSigmaPipeline";

bool knows(const Source& source) {
  return is_transformer_directory(source, {"PixArtAlphaPipeline", sigma_pipeline}, {"PixArtTransformer2DModel"});
}

/// The transformer's config.json.
struct Transformer {
  Value options;
  int64_t in = 4, size = 128, words = 4096, depth = 28;
  bool variance = true, sizes = false;
};

Transformer read_transformer(const fs::path& file) {
  const DiffusersConfig c(file, "the dit of brume");
  c.only<std::string>("norm_type", "ada_norm_single");
  c.only<std::string>("activation_fn", "gelu-approximate");
  c.only("attention_bias", true);
  c.only("norm_elementwise_affine", false);
  Transformer t;
  t.in = c.get<int64_t>("in_channels", 4), t.size = c.get<int64_t>("sample_size", 128), t.depth = c.get<int64_t>("num_layers", 28);
  t.words = c.get<int64_t>("caption_channels", 4096);
  if (t.depth < 1 || t.depth > 1000) c.refuse("num_layers", "1 to 1000");
  const int64_t out = c.get<int64_t>("out_channels", 2 * t.in), heads = c.get<int64_t>("num_attention_heads", 16);
  if (out != t.in && out != 2 * t.in) c.refuse("out_channels", fmt::format("{} and {}", t.in, 2 * t.in));
  t.variance = out != t.in;
  t.sizes = c.get("use_additional_conditions", t.size == 128);
  t.options = plugin_of("dit", {{"patch", c.get<int64_t>("patch_size", 2)},
                                {"width", heads * c.get<int64_t>("attention_head_dim", 72)},
                                {"depth", t.depth},
                                {"heads", heads},
                                {"modulation", "single"},
                                {"position_scale", c.get("interpolation_scale", double(std::max<int64_t>(t.size / 64, 1)))},
                                {"dropout", c.get("dropout", 0.0)}});
  return t;
}

NameTable names_of(int64_t depth) {
  NameTable names;
  names.add("x_embedder.proj.", "pos_embed.proj.");
  names.add("t_block.1.", "adaln_single.linear.");
  names.add("final_layer.scale_shift_table", "scale_shift_table");
  names.add("final_layer.linear.", "proj_out.");
  const std::vector<std::pair<const char*, const char*>> embedders{{"t_embedder.mlp.", "adaln_single.emb.timestep_embedder"},
                                                                   {"csize_embedder.mlp.", "adaln_single.emb.resolution_embedder"},
                                                                   {"ar_embedder.mlp.", "adaln_single.emb.aspect_ratio_embedder"}};
  for (const auto& [ours, theirs] : embedders) {
    names.add(ours + std::string("0."), theirs + std::string(".linear_1."));
    names.add(ours + std::string("2."), theirs + std::string(".linear_2."));
  }
  names.add("y_embedder.y_proj.fc1.", "caption_projection.linear_1.");
  names.add("y_embedder.y_proj.fc2.", "caption_projection.linear_2.");
  for (int64_t i = 0; i < depth; ++i) {
    const std::string ours = fmt::format("blocks.{}.", i), theirs = fmt::format("transformer_blocks.{}.", i);
    names.add(ours + "scale_shift_table", theirs + "scale_shift_table");
    names.add(ours + "attn.proj.", theirs + "attn1.to_out.0.");
    names.add(ours + "cross_attn.q_linear.", theirs + "attn2.to_q.");
    names.add(ours + "cross_attn.proj.", theirs + "attn2.to_out.0.");
    names.add(ours + "mlp.fc1.", theirs + "ff.net.0.proj.");
    names.add(ours + "mlp.fc2.", theirs + "ff.net.2.");
  }
  return names;
}

NamedTensors renamed(NamedTensors tensors, const Transformer& t, const std::string& folder) {
  std::erase_if(tensors, [](const NamedTensor& x) { return x.name == "pos_embed.pos_embed"; });  // computed here
  std::vector<JoinedLayer> joined;
  for (int64_t i = 0; i < t.depth; ++i) {
    const std::string ours = fmt::format("blocks.{}.", i), theirs = fmt::format("transformer_blocks.{}.", i);
    joined.push_back({ours + "attn.qkv", {theirs + "attn1.to_q", theirs + "attn1.to_k", theirs + "attn1.to_v"}});
    joined.push_back({ours + "cross_attn.kv_linear", {theirs + "attn2.to_k", theirs + "attn2.to_v"}});
  }
  return renamed_layers(tensors, names_of(t.depth), joined, folder, "dit");
}

/// Words, and the sizes if the network is conditioned on them.
void set_conditioner(Imported& model, Value& options, const Value& words, const NamedTensors& tensors, bool sizes) {
  options.set("conditioner", sizes ? plugin_of("composite", {{"of", std::vector<Value>{words, plugin_of("image_sizes", {})}}}) : words);
  for (const NamedTensor& t : tensors) model.tensors.push_back({(sizes ? "conditioner.0." : "conditioner.") + t.name, t.tensor});
}

Imported import_directory(const Source& source, const ImportOptions& import_options) {
  const std::string variant = variant_of(import_options, "PixArt");
  const bool pipeline = fs::is_regular_file(source.path / "model_index.json");
  const bool sigma = is_diffusers_class(source.path / "model_index.json", {sigma_pipeline});
  const fs::path network = pipeline ? source.path / "transformer" : source.path;
  const Transformer t = read_transformer(network / "config.json");
  const T5Use use{.length = sigma ? 300 : 120, .mask = true};
  Imported model;
  Value options = map_of({{"image", image_of(t.in, t.size, t.size)}});
  Value sample = map_of({{"sampler", "dpmpp_multistep"}, {"spacing", "linspace"}, {"steps", 20}});
  const Value cfg = plugin_of("cfg", {{"scale", 4.5}});
  if (pipeline) set_transformer_stage(model, options, source.path / "vae", variant, t.size, t.in);
  options.set("network", t.options);
  options.set("noise", value_of("linear"));
  options.set("parameterization", value_of("eps"));
  options.set("variance", value_of(t.variance ? "learned_range" : "none"));
  if (pipeline) {
    const DiffusersScheduler s =
        read_diffusers_scheduler(DiffusersConfig(source.path / "scheduler/scheduler_config.json", "a scheduler of brume"), false);
    options.set("noise", s.noise);
    options.set("parameterization", s.parameterization);
    sample = s.sample(20, {cfg});
    model.losses = s.losses;
    const fs::path encoder = source.path / "text_encoder";
    const T5Text text = read_t5(encoder, source.path / "tokenizer", variant_in(encoder, variant), use);
    model.files = text.files;
    set_conditioner(model, options, text.options, text.tensors, t.sizes);
    model.losses.emplace_back("the cleaning of captions: its pipelines lower their case and strip marks of web pages");
  } else {
    sample.set("guidance", Value::list({cfg}));
    set_conditioner(model, options, missing_t5(t.words, use), {}, t.sizes);
    model.losses.emplace_back(
        "there is no scheduler: linear betas are assumed; there is no vae: the model makes latents; there is no text "
        "encoder: model.conditioner lacks a tokenizer and weights");
  }
  model.options = section_of(options, (network / "config.json").string());
  model.sample = section_of(sample, source.path.string());
  for (const NamedTensor& x : renamed(component_tensors(network, variant), t, network.string()))
    model.tensors.push_back({"network." + x.name, x.tensor});
  return model;
}

}  // namespace

const Family diffusers_pixart{"diffusers directory of PixArt", knows, import_directory};

}  // namespace brume
