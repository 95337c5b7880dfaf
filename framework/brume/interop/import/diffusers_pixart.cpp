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
  c.only<double>("norm_eps", 1e-6);  // the last norm's, which is not told
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

NamedTensors renamed(NamedTensors tensors, const Transformer& t, const std::string& folder) {
  std::erase_if(tensors, [](const NamedTensor& x) { return x.name == "pos_embed.pos_embed"; });  // computed here
  return renamed_layers(tensors, pixart_names(t.depth), folder, "dit");
}

/// Sets the conditioner of words, and the sizes if the network is conditioned on them.
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
