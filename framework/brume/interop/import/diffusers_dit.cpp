// A diffusers directory of DiT (DiTPipeline): transformer, scheduler and vae; or its transformer alone (DiTTransformer2DModel). diffusers
// spaces the frequencies of the noise level's embedding otherwise than DiT (`shift: 1`), and guides all channels of the noise.
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>

#include <map>
#include <string_view>
#include <vector>

#include "brume/config/tree.h"
#include "brume/interop/import/diffusers_parts.h"
#include "brume/interop/import/diffusers_scheduler.h"
#include "brume/interop/import/diffusers_transformer.h"
#include "brume/interop/import/diffusers_weights.h"
#include "brume/interop/import/families.h"
#include "brume/interop/layouts/transformer_names.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

bool knows(const Source& source) { return is_transformer_directory(source, {"DiTPipeline"}, {"DiTTransformer2DModel"}); }

/// The transformer's config.json.
struct Transformer {
  Value options;
  int64_t in = 4, size = 32, classes = 1000, depth = 28, width = 1152;
  bool variance = false;
};

Transformer read_transformer(const fs::path& file) {
  const DiffusersConfig c(file, "the dit of brume");
  c.only<std::string>("norm_type", "ada_norm_zero");
  c.only<std::string>("activation_fn", "gelu-approximate");
  c.only("attention_bias", true);
  c.only("norm_elementwise_affine", false);
  Transformer t;
  t.in = c.get<int64_t>("in_channels", 4), t.size = c.get<int64_t>("sample_size", 32);
  t.classes = c.get<int64_t>("num_embeds_ada_norm", 1000), t.depth = c.get<int64_t>("num_layers", 28);
  if (t.depth < 1 || t.depth > 1000) c.refuse("num_layers", "1 to 1000");
  const int64_t out = c.get<int64_t>("out_channels", t.in), heads = c.get<int64_t>("num_attention_heads", 16);
  if (out != t.in && out != 2 * t.in) c.refuse("out_channels", fmt::format("{} and {}", t.in, 2 * t.in));
  t.variance = out != t.in;
  t.width = heads * c.get<int64_t>("attention_head_dim", 72);
  t.options = plugin_of("dit", {{"patch", c.get<int64_t>("patch_size", 2)},
                                {"width", t.width},
                                {"depth", t.depth},
                                {"heads", heads},
                                {"mlp_norm_eps", c.get("norm_eps", 1e-5)},
                                {"dropout", c.get("dropout", 0.0)},
                                {"noise_embedding", plugin_of("sinusoidal", {{"shift", 1}})}});
  return t;
}

/// Returns the tensors under brume's names. Every block repeats the embedders of noise level and class, which must be the same.
NamedTensors renamed(const NamedTensors& tensors, const Transformer& transformer, const std::string& folder) {
  const NameTable names = dit_names(transformer.depth).names;
  NamedTensors all;
  std::map<std::string, at::Tensor> shared, parts;
  for (const NamedTensor& t : tensors) {
    const size_t repeated = t.name.find(dit_embedders), qkv = t.name.find(".attn1.to_");
    if (t.name == "pos_embed.pos_embed") continue;  // fixed positions, computed here
    if (qkv != std::string::npos && t.name.find(".to_out.") == std::string::npos) {
      parts[t.name] = t.tensor;
      continue;
    }
    const auto ours = names.ours(repeated == std::string::npos ? t.name : t.name.substr(repeated));
    if (!ours) throw ConfigError(fmt::format("{}: the dit of brume has no place for the tensor '{}'", folder, t.name));
    if (repeated != std::string::npos) {
      const auto [first, fresh] = shared.try_emplace(*ours, t.tensor);
      if (!fresh && (first->second.scalar_type() != t.tensor.scalar_type() || !at::equal(first->second, t.tensor)))
        throw ConfigError(
            fmt::format("{}: '{}' differs from that of another block; the dit of brume has one for all blocks", folder, t.name));
      if (!fresh) continue;
    }
    all.push_back({*ours, t.tensor});
  }
  for (int64_t i = 0; i < transformer.depth; ++i)
    for (const char* what : {"weight", "bias"}) {
      std::vector<at::Tensor> three;
      std::vector<int64_t> shape{transformer.width};
      if (std::string_view(what) == "weight") shape.push_back(transformer.width);
      for (const char* part : {"q", "k", "v"}) {
        const std::string name = fmt::format("transformer_blocks.{}.attn1.to_{}.{}", i, part, what);
        const auto at = parts.find(name);
        if (at == parts.end()) throw ConfigError(fmt::format("{}: has no tensor '{}'", folder, name));
        if (at->second.sizes() != at::IntArrayRef(shape))
          throw ConfigError(fmt::format("{}: '{}' is not of the width {} that config.json gives (heads times attention_head_dim)", folder,
                                        name, transformer.width));
        three.push_back(at->second);
      }
      all.push_back({fmt::format("blocks.{}.attn.qkv.{}", i, what), at::cat(three)});
    }
  return all;
}

/// Returns the scheduler of a pipeline; of a transformer alone, DDIM with linear betas.
DiffusersScheduler scheduler_of(const fs::path& folder, bool pipeline) {
  const char* part = "a scheduler of brume";
  if (pipeline) return read_diffusers_scheduler(DiffusersConfig(folder / "scheduler/scheduler_config.json", part), false);
  const nlohmann::json ddim = nlohmann::json::object({{"_class_name", "DDIMScheduler"}, {"clip_sample", false}});
  return read_diffusers_scheduler(DiffusersConfig(ddim, (folder / "config.json").string(), part), false);
}

Imported import_directory(const Source& source, const ImportOptions& options) {
  const std::string variant = variant_of(options, "DiT");
  const bool pipeline = fs::is_regular_file(source.path / "model_index.json");
  const fs::path network = pipeline ? source.path / "transformer" : source.path, config = network / "config.json";
  const Transformer t = read_transformer(config);
  const DiffusersScheduler s = scheduler_of(source.path, pipeline);
  Imported model;
  Value all = map_of({{"image", image_of(t.in, t.size, t.size)}});
  if (pipeline)
    set_transformer_stage(model, all, source.path / "vae", variant, t.size, t.in);
  else
    model.losses.emplace_back("there is no scheduler: linear betas and DDIM are assumed; there is no vae: the model makes latents");
  all.set("network", t.options);
  all.set("conditioner", plugin_of("class_label", {{"classes", t.classes}, {"dropout", 0.1}}));
  all.set("noise", s.noise);
  all.set("parameterization", s.parameterization);
  all.set("variance", value_of(t.variance ? "learned_range" : "none"));
  model.options = section_of(all, config.string());
  model.sample = section_of(s.sample(50, {plugin_of("cfg", {{"scale", 4}})}), source.path.string());
  model.losses.insert(model.losses.end(), s.losses.begin(), s.losses.end());
  for (const NamedTensor& tensor : renamed(component_tensors(network, variant), t, network.string()))
    model.tensors.push_back({"network." + tensor.name, tensor.tensor});
  return model;
}

}  // namespace

const Family diffusers_transformer{"diffusers directory of DiT", knows, import_directory};

}  // namespace brume
