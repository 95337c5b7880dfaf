// A diffusers directory: model_index.json names the components, each a folder with a config.json and its weights.
//
//   unet + scheduler                                     images from noise (DDPMPipeline, DDIMPipeline, PNDMPipeline)
//   vqvae or vae + unet + scheduler                      latents without words (LDMPipeline)
//   vae + unet + scheduler + text_encoder + tokenizer    Stable Diffusion 1 and 2, and those for inpainting
//   the same + text_encoder_2 + tokenizer_2              SDXL and its refiner, which lacks the first text encoder
//
// Of the oldest (DDPM's), unet and scheduler have no folders: their files lie next to model_index.json.
// A single component is opened as well: a U-Net for pixels, and a first stage (AutoencoderKL, VQModel, AutoencoderTiny).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "brume/config/counted.h"
#include "brume/config/number.h"
#include "brume/config/suggest.h"
#include "brume/config/tree.h"
#include "brume/interop/import/diffusers_index.h"
#include "brume/interop/import/diffusers_parts.h"
#include "brume/interop/import/diffusers_scheduler.h"
#include "brume/interop/import/diffusers_text.h"
#include "brume/interop/import/diffusers_unet.h"
#include "brume/interop/import/diffusers_weights.h"
#include "brume/interop/import/families.h"
#include "brume/interop/layouts/conditioning.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

/// What the files of a directory leave open.
class DirectorySettings {
 public:
  std::string variant;
  std::optional<int64_t> sample_size, classes;
  bool null_class = false;

  explicit DirectorySettings(const ImportOptions& options) {
    for (const auto& [key, value] : options.settings) set(key, value);
  }

 private:
  void set(const std::string& key, const std::string& value) {
    if (key == "variant")
      variant = value;
    else if (key == "sample_size")
      sample_size = count(key, value, "pixels (of latents, if the model has a first stage)");
    else if (key == "classes")
      classes = count(key, value, "classes");
    else if (key == "null_class" && (value == "true" || value == "false"))
      null_class = value == "true";
    else if (key == "null_class")
      throw ConfigError(fmt::format("null_class={}: true or false is expected", value));
    else
      throw ConfigError(fmt::format("{}={}: a diffusers directory has nothing of that name to be said{}", key, value,
                                    hint(key, {"variant", "sample_size", "classes", "null_class"})));
  }
  static int64_t count(const std::string& key, const std::string& text, const char* what) {
    const auto number = parse_number<int64_t>(text);
    if (!number || *number < 1) throw ConfigError(fmt::format("{}={}: a number of {} is expected", key, text, what));
    return *number;
  }
};

bool component(const Source& source) {
  static const std::vector<std::string> known{"UNet2DModel", "UNet2DConditionModel", "AutoencoderKL", "VQModel", "AutoencoderTiny"};
  if (!fs::is_regular_file(source.path / "config.json")) return false;
  const nlohmann::json config = read_json(source.path / "config.json");
  if (!config.is_object()) return false;
  const auto name = DiffusersConfig(config, (source.path / "config.json").string(), "a component").get<std::string>("_class_name", "");
  return std::find(known.begin(), known.end(), name) != known.end();
}

bool knows(const Source& source) {
  return source.directory() && (fs::is_regular_file(source.path / "model_index.json") || component(source));
}

void add(Imported& model, const std::string& prefix, const NamedTensors& tensors) {
  for (const NamedTensor& t : tensors) model.tensors.push_back({prefix + t.name, t.tensor});
}

/// Returns the class embedding's conditioner; nothing if the network has none. Its pipelines pass the class with words and without them:
/// the null condition keeps it, unless the last class is the null one.
std::vector<Value> class_labels(const fs::path& config, const DiffusersUnet& unet, const DirectorySettings& settings) {
  if (settings.classes && !unet.number)
    throw ConfigError(fmt::format("classes={}: {} says itself how many classes there are: {} (num_class_embeds)", *settings.classes,
                                  config.string(), unet.classes));
  if (unet.number && !settings.classes)
    throw ConfigError(
        fmt::format("{}: class_embed_type is \"timestep\": the network receives classes as numbers, and the file does not "
                    "say how many there are; classes=N sets it",
                    config.string()));
  const int64_t classes = unet.number ? *settings.classes : unet.classes;
  if (settings.null_class && classes < 2)
    throw ConfigError(fmt::format("null_class=true: {} has {} (num_class_embeds), and the last of at least 2 can be the null class",
                                  config.string(), counted(classes, "class")));
  if (classes == 0) return {};
  Value labels =
      plugin_of("class_label", {{"classes", classes - (settings.null_class ? 1 : 0)}, {"dropout", settings.null_class ? 0.1 : 0}});
  if (unet.transformer() && !settings.null_class) labels.set("keep", value_of(true));
  return {labels};
}

/// Throws ConfigError unless the U-Net's channels are those of what it makes, the variance apart; one that attends to words may inpaint.
void check_channels(const fs::path& config, const DiffusersUnet& unet, int64_t latent, bool learned_range) {
  const int64_t inpainting = unet.transformer() ? inpainting_channels(latent) : latent;
  if (unet.in_channels != latent && unet.in_channels != inpainting)
    throw ConfigError(fmt::format(
        "{}: in_channels is {}; the unet of brume supports {}{} only", config.string(), unet.in_channels, latent,
        inpainting == latent ? ", the channels of what it makes,"
                             : fmt::format(", the channels of what it makes, and {}, with a mask and a masked image,", inpainting)));
  const int64_t out = latent * (learned_range ? 2 : 1);
  if (unet.out_channels != out)
    throw ConfigError(fmt::format("{}: out_channels is {}; the unet of brume supports {} only{}", config.string(), unet.out_channels, out,
                                  learned_range ? ", as the scheduler's variance_type learned_range asks" : ""));
}

/// The sections of a model, part by part.
struct Sections {
  Value image, autoencoder = value_of("identity"), conditioner = value_of("none");
  std::vector<Value> guidance;
  int64_t steps = 50;

  void write(Imported& model, const DiffusersUnet& unet, const DiffusersScheduler& s, const std::string& source) const {
    Value options = map_of({{"image", image},
                            {"autoencoder", autoencoder},
                            {"network", unet.options()},
                            {"conditioner", conditioner},
                            {"noise", s.noise},
                            {"parameterization", s.parameterization}});
    if (s.learned_range) options.set("variance", value_of("learned_range"));
    model.options = section_of(options, source);
    model.sample = section_of(s.sample(steps, guidance), source);
    model.losses.insert(model.losses.end(), s.losses.begin(), s.losses.end());
  }
};

/// Adds a U-Net's tensors under their place in a model.
void add_unet(Imported& model, const DiffusersUnet& unet, const fs::path& folder, const std::string& variant) {
  try {
    add(model, "network.", unet.tensors(component_tensors(folder, variant)));
  } catch (const ConfigError& e) {
    std::vector<Problem> problems;
    for (const Problem& p : e.problems())
      problems.push_back({p.place, p.path, p.message.starts_with(folder.string()) ? p.message : folder.string() + ": " + p.message});
    throw ConfigError(std::move(problems));
  }
}

/// Returns the folder of a component, or the pipeline's if its `file` lies there.
fs::path place_of(const fs::path& folder, const char* component, const char* file) {
  return !fs::is_directory(folder / component) && fs::is_regular_file(folder / file) ? folder : folder / component;
}

/// Of a pipeline, components without the variant that is asked for are taken without it if others have it.
class Variants {
 public:
  Variants(const fs::path& folder, const std::string& asked) : asked_(asked) {
    for (const char* component : {"unet", "vae", "vqvae", "text_encoder", "text_encoder_2"})
      some_ = some_ || has_variant(folder / component, asked);
  }
  std::string of(const fs::path& component, std::vector<std::string>& losses) const {
    if (asked_.empty() || !some_ || has_variant(component, asked_)) return asked_;
    losses.push_back(fmt::format("{} in the variant {}, which does not exist: its weights without one are taken",
                                 component.filename().string(), asked_));
    return "";
  }

 private:
  std::string asked_;
  bool some_ = false;
};

/// Returns true for DDIMPipeline and PNDMPipeline, which make a scheduler of their own from whatever there is.
bool own_scheduler(const DiffusersIndex& index) { return index.pipeline() == "DDIMPipeline" || index.pipeline() == "PNDMPipeline"; }

/// Reads the scheduler; if its file names no class, it is that of model_index.json.
DiffusersScheduler scheduler_of(const fs::path& folder, const DiffusersIndex& index) {
  const std::string pipeline = index.pipeline();
  const std::string type = own_scheduler(index) ? pipeline.substr(0, 4) + "Scheduler" : index.component("scheduler");
  const bool stable_diffusion = pipeline.starts_with("StableDiffusion") && !pipeline.starts_with("StableDiffusionXL");
  return read_diffusers_scheduler(DiffusersConfig(folder / "scheduler_config.json", "a scheduler of brume", type), stable_diffusion);
}

/// Adds a line if a component's file is of another class than model_index.json says, which is the one that is taken.
void note_class(const fs::path& file, const DiffusersIndex& index, const char* component, std::vector<std::string>& losses) {
  const std::string type = index.component(component), there = DiffusersConfig(file, "a component").get<std::string>("_class_name", type);
  if (there != type) losses.push_back(fmt::format("the class {} of {}: {} is taken, as model_index.json says", there, file.string(), type));
}

/// Writers of Stable Diffusion before diffusers 0.9 left the sample_size of the U-Net at 32; its pipelines take 64 for less than that.
void correct_size(DiffusersUnet& unet, const fs::path& config, const std::string& pipeline, const DirectorySettings& settings,
                  std::vector<std::string>& losses) {
  constexpr int64_t right = 64;
  if (!pipeline.starts_with("StableDiffusion") || !unet.before_0_9 || settings.sample_size || std::min(unet.height, unet.width) >= right)
    return;
  losses.push_back(
      fmt::format("the sample_size {} of {}, a known mistake of diffusers before 0.9: {} is taken (sample_size=N says otherwise)",
                  unet.height, config.string(), right));
  unet.height = unet.width = right;
}

/// Sets the sections of a pipeline without a first stage: the network sees pixels.
void set_pixels(Sections& s, const DiffusersIndex& index, const fs::path& config, const DiffusersUnet& unet,
                const DiffusersScheduler& scheduler) {
  if (unet.in_channels != 1 && unet.in_channels != 3)
    throw ConfigError(
        fmt::format("{}: vae is missing, and {} says in_channels {}: images have 1 or 3 channels, and what has others needs one",
                    index.file(), config.string(), unet.in_channels));
  check_channels(config, unet, unet.in_channels, scheduler.learned_range);
  s.image = image_of(unet.in_channels, unet.height, unet.width);
  if (scheduler.unit_range) s.autoencoder = plugin_of("rescaled", {{"scale", 0.5}, {"shift", -1}});
}

DiffusersStage read_stage(const fs::path& folder, const std::string& name, const DiffusersIndex& index, const std::string& variant,
                          const DiffusersUnet& unet, std::vector<std::string>& losses) {
  index.expect(name, {"AutoencoderKL", "VQModel", "AutoencoderTiny"});
  DiffusersStage stage = read_diffusers_stage(folder / name, variant, unet.height, index.component(name));
  note_class(folder / name / "config.json", index, name.c_str(), losses);
  return stage;
}

/// Sets the sections of a pipeline with a first stage. Returns true if the network inpaints: it receives a mask and a masked image.
bool set_stage(Sections& s, Imported& model, const DiffusersStage& stage, const fs::path& config, const DiffusersUnet& unet,
               const DiffusersScheduler& scheduler) {
  check_channels(config, unet, stage.latent_channels, scheduler.learned_range);
  s.image = image_of(stage.channels, unet.height * stage.ratio, unet.width * stage.ratio);
  s.autoencoder = stage.options;
  add(model, "autoencoder.", stage.tensors);
  return unet.in_channels != stage.latent_channels;
}

/// Returns the text encoders that the U-Net is made for: one, or those of SDXL.
DiffusersText text_of(const fs::path& folder, const DiffusersIndex& index, const DiffusersUnet& unet, const Variants& variants,
                      std::vector<std::string>& losses) {
  const auto variant = [&](const fs::path& component) { return variants.of(component, losses); };
  const auto expect = [&](const std::string& ending) {
    index.expect("text_encoder" + ending, {"CLIPTextModel", "CLIPTextModelWithProjection"});
    index.expect("tokenizer" + ending, {"CLIPTokenizer", "CLIPTokenizerFast"});
  };
  if (unet.added_width == 0 || !index.component("text_encoder").empty()) expect("");
  if (unet.added_width == 0) return read_diffusers_text(folder, variant);
  expect("_2");
  return read_diffusers_xl_text(folder, variant, index.truth("force_zeros_for_empty_prompt"));
}

/// Returns the sizes that SDXL is conditioned on; the refiner has an aesthetic score among them.
Value sizes_of(const DiffusersIndex& index, const DiffusersUnet& unet, const DiffusersText& text, const fs::path& config) {
  const bool score = index.truth("requires_aesthetics_score");
  const int64_t sizes = score ? 5 : 6;
  if (unet.added_width != text.vector_width + sizes * unet.size_channels)
    throw ConfigError(fmt::format("{}: projection_class_embeddings_input_dim is {}; a pooled vector of {} and {} of {} make {}",
                                  config.string(), unet.added_width, text.vector_width, counted(sizes, "size"),
                                  counted(unet.size_channels, "channel"), text.vector_width + sizes * unet.size_channels));
  return xl_sizes(score);
}

/// Sets the guidance scale of a pipeline: a condition of a network that imitates it, or that of classifier-free guidance.
void set_guidance(Sections& s, std::vector<Value>& others, double scale, bool condition) {
  if (condition)
    others.push_back(plugin_of("guidance_scale", {{"scale", scale}}));
  else
    s.guidance.push_back(plugin_of("cfg", {{"scale", scale}}));
}

void check_width(const fs::path& config, int64_t context, int64_t text) {
  if (text == context) return;
  const bool said = DiffusersConfig(config, "the unet of brume").has("cross_attention_dim");
  throw ConfigError(fmt::format("{}: cross_attention_dim is {}{}, and the hidden_size of the text encoders {}", config.string(),
                                said ? "" : "missing, which means ", context, text));
}

Imported import_pipeline(const fs::path& folder, const DirectorySettings& settings) {
  const DiffusersIndex index(folder);
  Imported model;
  index.expect("unet", {"UNet2DModel", "UNet2DConditionModel"});
  model.losses = index.losses();
  const std::string pipeline = index.pipeline();
  if (index.component("scheduler").empty()) index.expect("scheduler", {"DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"});
  const fs::path levels = place_of(folder, "scheduler", "scheduler_config.json");
  const DiffusersScheduler scheduler = scheduler_of(levels, index);
  if (!own_scheduler(index)) note_class(levels / "scheduler_config.json", index, "scheduler", model.losses);
  const fs::path network = place_of(folder, "unet", "config.json"), config = network / "config.json";
  DiffusersUnet unet = read_diffusers_unet(config, settings.sample_size, index.component("unet"));
  note_class(config, index, "unet", model.losses);
  correct_size(unet, config, pipeline, settings, model.losses);
  unet.noise_embedding = scheduler.noise_embedding;
  const Variants variants(folder, settings.variant);

  Sections s;
  bool inpainting = false;
  const std::string stage = !index.component("vqvae").empty() ? "vqvae" : !index.component("vae").empty() ? "vae" : "";
  if (stage.empty()) {
    set_pixels(s, index, config, unet, scheduler);
  } else {
    const std::string stage_variant = variants.of(folder / stage, model.losses);
    inpainting = set_stage(s, model, read_stage(folder, stage, index, stage_variant, unet, model.losses), config, unet, scheduler);
  }
  std::vector<Value> others = class_labels(config, unet, settings);
  if (unet.transformer()) {
    if (inpainting) others.insert(others.begin(), masked_image());
    const DiffusersText text = text_of(folder, index, unet, variants, model.losses);
    check_width(config, unet.context_width, text.width);
    if (unet.added_width > 0) others.push_back(sizes_of(index, unet, text, config));
    const bool consistency = pipeline.starts_with("LatentConsistencyModel");
    set_guidance(s, others, consistency ? 8.5 : unet.added_width > 0 ? 5 : 7.5, unet.guidance_channels > 0);
    if (consistency) s.steps = 4;
    s.conditioner = composite_of(text.options, others);
    model.files = text.files;
    model.losses.insert(model.losses.end(), text.losses.begin(), text.losses.end());
    add(model, words_prefix(others), text.tensors);
  } else if (!others.empty()) {
    s.conditioner = others[0];
  }
  if (pipeline == "DDPMPipeline") s.steps = 1000;
  if (pipeline == "ScoreSdeVePipeline") s.steps = 2000;
  s.write(model, unet, scheduler, index.file());
  add_unet(model, unet, network, variants.of(network, model.losses));
  return model;
}

/// Imports a single U-Net, which makes pixels; how it was trained is what DDPM's was.
Imported import_unet(const fs::path& folder, const DirectorySettings& settings) {
  const fs::path config = folder / "config.json";
  const DiffusersUnet unet = read_diffusers_unet(config, settings.sample_size);
  if (unet.transformer())
    throw ConfigError(
        fmt::format("{}: is a UNet2DConditionModel alone; its text_encoder, tokenizer and scheduler are needed as well: "
                    "import the directory with model_index.json",
                    folder.string()));
  Imported model;
  const DiffusersConfig defaults(nlohmann::json::object({{"_class_name", "DDPMScheduler"}}), config.string(), "a scheduler of brume");
  DiffusersScheduler scheduler = read_diffusers_scheduler(defaults, false);
  scheduler.learned_range = unet.out_channels == 2 * unet.in_channels;
  check_channels(config, unet, unet.in_channels, scheduler.learned_range);
  Sections s;
  s.image = image_of(unet.in_channels, unet.height, unet.width);
  for (const Value& labels : class_labels(config, unet, settings)) s.conditioner = labels;
  s.write(model, unet, scheduler, config.string());
  model.losses.emplace_back("there is no scheduler: linear betas and a network that predicts noise are assumed, as in DDPM");
  add_unet(model, unet, folder, settings.variant);
  return model;
}

Imported import_stage(const fs::path& folder, const DirectorySettings& settings) {
  Imported model;
  model.section = "autoencoder";
  const DiffusersStage stage = read_diffusers_stage(folder, settings.variant, {});
  const int64_t size = settings.sample_size.value_or(stage.size);
  model.options =
      section_of(map_of({{"image", image_of(stage.channels, size, size)}, {"network", stage.options}}), (folder / "config.json").string());
  add(model, "autoencoder.", stage.tensors);
  return model;
}

Imported import_directory(const Source& source, const ImportOptions& options) {
  const DirectorySettings settings(options);
  if (fs::is_regular_file(source.path / "model_index.json")) return import_pipeline(source.path, settings);
  const DiffusersConfig config(source.path / "config.json", "a component");
  return config.get<std::string>("_class_name", "").starts_with("UNet") ? import_unet(source.path, settings)
                                                                        : import_stage(source.path, settings);
}

}  // namespace

const Family diffusers_directory{"diffusers directory", knows, import_directory};

}  // namespace brume
