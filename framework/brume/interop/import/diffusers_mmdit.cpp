// A diffusers directory of Stable Diffusion 3 and 3.5 (StableDiffusion3Pipeline) or FLUX (FluxPipeline), or its transformer alone.
#include <fmt/format.h>

#include "brume/config/number.h"
#include "brume/config/tree.h"
#include "brume/interop/import/diffusers_config.h"
#include "brume/interop/import/diffusers_scheduler.h"
#include "brume/interop/import/diffusers_transformer.h"
#include "brume/interop/import/diffusers_weights.h"
#include "brume/interop/import/families.h"
#include "brume/interop/import/mmdit_parts.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

const std::string sd3_transformer = "SD3Transformer2DModel", flux_transformer = "FluxTransformer2DModel";

bool knows(const Source& source) {
  return is_transformer_directory(source, {"StableDiffusion3Pipeline", "FluxPipeline"}, {sd3_transformer, flux_transformer});
}

MmditNetwork read_sd3(const DiffusersConfig& c) {
  MmditNetwork n;
  n.heads = c.get<int64_t>("num_attention_heads", 18), n.width = n.heads * c.get<int64_t>("attention_head_dim", 64);
  c.only("caption_projection_dim", n.width);
  n.patch = c.get<int64_t>("patch_size", 2), n.in = c.get<int64_t>("in_channels", 16), n.out = c.get<int64_t>("out_channels", 16);
  n.depth = c.get<int64_t>("num_layers", 18), n.size = c.get<int64_t>("sample_size", 128);
  n.words = c.get<int64_t>("joint_attention_dim", 4096), n.pooled = c.get<int64_t>("pooled_projection_dim", 2048);
  n.position_size = c.get<int64_t>("pos_embed_max_size", 96);
  n.dual_blocks = c.get<std::vector<int64_t>>("dual_attention_layers", {});
  const auto norm = c.get<std::string>("qk_norm", "");
  if (!norm.empty() && norm != "rms_norm") c.refuse("qk_norm", "null and rms_norm");
  n.qk_norm = !norm.empty();
  return n;
}

MmditNetwork read_flux(const DiffusersConfig& c) {
  MmditNetwork n{.flux = true};
  n.heads = c.get<int64_t>("num_attention_heads", 24), n.width = n.heads * c.get<int64_t>("attention_head_dim", 128);
  c.only<int64_t>("patch_size", 1);  // its pipeline packs two by two
  n.in = c.get<int64_t>("in_channels", 64) / (n.patch * n.patch);
  n.out = c.get<int64_t>("out_channels", c.get<int64_t>("in_channels", 64)) / (n.patch * n.patch);
  n.depth = c.get<int64_t>("num_layers", 19), n.single_depth = c.get<int64_t>("num_single_layers", 38);
  n.words = c.get<int64_t>("joint_attention_dim", 4096), n.pooled = c.get<int64_t>("pooled_projection_dim", 768);
  n.guidance = c.get("guidance_embeds", false), n.qk_norm = true;
  n.rotary_axes = c.get<std::vector<int64_t>>("axes_dims_rope", {16, 56, 56});
  return n;
}

/// Returns the tensors under brume's names.
NamedTensors renamed(const NamedTensors& tensors, const MmditNetwork& n, const std::string& folder) {
  NamedTensors all = renamed_layers(tensors, mmdit_names(n.flux, n.depth, n.single_depth, n.dual_blocks), folder, "mmdit");
  for (NamedTensor& t : all) {
    if (mmdit_swaps(t.name, n.depth, n.single_depth)) t.tensor = swapped_halves(t.tensor);
    if (n.flux) t.tensor = from_flux_layout(t.name, t.tensor, n.patches());
  }
  return all;
}

MmditSettings settings_of(const ImportOptions& options, const fs::path& folder) {
  MmditSettings s{.pipeline = fs::is_regular_file(folder / "model_index.json") ? folder : fs::path()};
  for (const auto& [key, value] : options.settings) {
    const auto number = parse_number<int64_t>(value);
    if (key == "variant")
      s.variant = value;
    else if (key == "max_sequence_length" && number && *number > 1)
      s.length = *number;
    else if (key == "max_sequence_length")
      throw ConfigError(fmt::format("{}={}: a number of tokens is expected", key, value));
    else
      throw ConfigError(fmt::format(
          "{}={}: a diffusers directory of Stable Diffusion 3 or FLUX has variant and max_sequence_length to be set", key, value));
  }
  return s;
}

Imported import_directory(const Source& source, const ImportOptions& import_options) {
  const MmditSettings settings = settings_of(import_options, source.path);
  const bool pipeline = !settings.pipeline.empty();
  const fs::path network = pipeline ? source.path / "transformer" : source.path;
  const DiffusersConfig config(network / "config.json", "the mmdit of brume");
  const auto type = config.get<std::string>("_class_name", "");
  if (type != sd3_transformer && type != flux_transformer) config.refuse("_class_name", sd3_transformer + " and " + flux_transformer);
  const MmditNetwork n = type == flux_transformer ? read_flux(config) : read_sd3(config);
  if (n.depth < 1 || n.depth > 1000 || n.single_depth < 0 || n.single_depth > 1000) config.refuse("num_layers", "1 to 1000");
  if (n.out != n.in) config.refuse("out_channels", "as many as in_channels");
  Imported model;
  Value options = Value::map();
  add_mmdit_parts(model, options, n, settings.pipeline, settings);
  options.set("network", n.options());
  set_mmdit_sampling(model, options, n, pipeline ? source.path / "scheduler/scheduler_config.json" : fs::path());
  model.options = section_of(options, config.file());
  for (const NamedTensor& t : renamed(component_tensors(network, variant_in(network, settings.variant)), n, network.string()))
    model.tensors.push_back({"network." + t.name, t.tensor});
  return model;
}

}  // namespace

const Family diffusers_mmdit{"diffusers directory of Stable Diffusion 3 or FLUX", knows, import_directory};

}  // namespace brume
