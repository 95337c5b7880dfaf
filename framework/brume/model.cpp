#include "brume/model.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "brume/config/number.h"
#include "brume/config/plugin_loader.h"
#include "brume/config/yaml.h"
#include "brume/core/boundary.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/configuration.h"
#include "brume/diffusion/decoding.h"
#include "brume/diffusion/model_files.h"
#include "brume/diffusion/prompt_plan.h"
#include "brume/diffusion/quantization.h"
#include "brume/diffusion/refining.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/diffusion/unused_options.h"
#include "brume/hires.h"
#include "brume/interop/import/import.h"
#include "brume/interop/lora.h"
#include "brume/like.h"
#include "brume/request_warnings.h"

namespace brume {
namespace {

/// Returns the value at a path like "model.network.channels", or null.
const Value* walk(const Value& root, const std::string& path) {
  const Value* v = &root;
  for (size_t start = 0; v && start <= path.size();) {
    const size_t dot = std::min(path.find('.', start), path.size());
    const std::string key = path.substr(start, dot - start);
    if (v->is_list()) {
      const auto index = parse_number<size_t>(key);
      v = index && *index < v->items.size() ? &v->items[*index] : nullptr;
    } else {
      v = v->find(key);
    }
    start = dot + 1;
  }
  return v;
}

/// Refuses settings that contradict the model of a file; they may repeat it.
void refuse_model_settings(const Value& root, const OpenOptions& o, const std::string& file) {
  for (const std::string& a : o.settings) {
    const size_t equals = a.find('=');
    if (!a.starts_with("model") || equals == std::string::npos) continue;
    const Value* have = walk(root, a.substr(0, equals));
    const std::string wanted = a.substr(equals + 1);
    if (have && have->is_scalar() && have->scalar == wanted) continue;
    throw ConfigError(fmt::format("{} {}: {} has {} = {}; a checkpoint's model cannot be changed", called(o.names, "settings"), a, file,
                                  a.substr(0, equals), have ? (have->is_scalar() ? have->scalar : have->kind_text()) : "nothing"));
  }
}

void apply_settings(const OpenOptions& o, Value& root) {
  for (const std::string& setting : o.settings) apply_override(root, setting, called(o.names, "settings"));
  const auto set = [&](const char* path, std::string_view field, const std::string& value) {
    if (!value.empty()) apply_override(root, path, value, fmt::format("{} {}", called(o.names, field), value));
  };
  set("compute.precision", "precision", o.precision);
  set("compute.device", "device", o.device);
  set("compute.threads", "threads", o.threads ? std::to_string(*o.threads) : "");
}

/// The LoRAs that the section `sample:` names.
struct Loras {
  std::vector<std::string> lora;
  void declare(Fields& f) { f.field("lora", lora, "files of low-rank changes to the weights"); }
};

/// What is read before the weights are.
struct OpenedFile {
  std::string path;
  bool yaml = false;
  Value root;          ///< without `sample:` and `train:`
  Value sample;        ///< that section; null if the file has none
  StoredModel stored;  ///< of a model's file
};

OpenedFile read_source(const std::filesystem::path& path, const OpenOptions& o) {
  OpenedFile s;
  s.path = model_file(path.string());
  s.yaml = s.path.ends_with(".yaml") || s.path.ends_with(".yml");
  if (s.yaml) {
    if (!o.import.empty())
      throw ConfigError(fmt::format("{} {}={}: {} is a configuration, no model of another program", called(o.names, "import"),
                                    o.import.begin()->first, o.import.begin()->second, s.path));
    s.root = load_yaml(s.path);
  } else {
    ImportOptions options;
    options.settings = o.import;
    s.stored = open_stored(s.path, options);
    s.root = Value::map();
    s.root.set("model", s.stored.card.model);
    s.root.set("sample", s.stored.card.sample);
    refuse_model_settings(s.root, o, s.path);
  }
  apply_settings(o, s.root);
  if (const Value* sample = s.root.find("sample")) s.sample = *sample;
  s.root.erase("sample");
  s.root.erase("train");
  return s;
}

/// Returns the configuration of a diffusion model; throws ConfigError for another one.
ModelConfig read_model(Registry& registry, const OpenedFile& s) {
  ModelConfig config;
  read_stored(registry, s.path, s.stored.card.plugins, [&] { config = read_model_configuration(registry, s.root); });
  if (config.classifier) throw ConfigError(fmt::format("{}: is the configuration of a classifier; nothing can be sampled from it", s.path));
  if (config.autoencoder)
    throw ConfigError(fmt::format("{}: is the configuration of an autoencoder; nothing can be sampled from it", s.path));
  return config;
}

}  // namespace

struct Model::Opened {
  Registry own;  ///< of a caller who has none
  const Registry* registry = nullptr;
  Warn warn;
  std::string path;
  std::vector<std::string> libraries;  ///< that the file was made with
  Value sample;
  OpenOptions options;                            ///< that it was opened with
  mutable std::mutex lock;                        ///< of `refiners`
  mutable std::map<std::string, Model> refiners;  ///< those that were asked for, by path
  std::unique_ptr<ModelFiles> others;
  std::unique_ptr<const Pipeline> pipeline;

  explicit Opened(const OpenOptions& o);
  void load(Registry& all, const OpenedFile& source, const OpenOptions& o);
  /// Returns the section `sample:` of the model, with the request laid over it.
  Value configuration(const ImageRequest& r) const;
  /// Warns of what the request asks for and has no effect, and what it writes as other programs read it.
  void warn_of(const ImageRequest& r, const SampleOptions& options, const std::vector<Annotation>& images) const;
  SampleRequest run_of(const ImageRequest& request, const SampleOptions& options) const;
  void set_image(const ImageRequest& r, SampleRequest& run) const;
  /// Returns the refiner of the request, opened as this model was.
  Model refiner(const ImageRequest& r) const;
  void check_passes(const ImageRequest& r) const;
  std::vector<Annotation> annotations(const ImageRequest& r, const SampleOptions& options) const;
  ImageShape image_of(const ImageRequest& r) const;
};

Model::Opened::Opened(const OpenOptions& o) : warn(o.warn), options(o) {
  if (o.registry) return;
  register_builtins(own);
  if (warn) own.on_warning([warn = warn](const Problem& problem) { warn(problem.text()); });
}

void Model::Opened::load(Registry& all, const OpenedFile& s, const OpenOptions& o) {
  registry = &all;
  path = s.path;
  libraries = s.stored.card.plugins;
  sample = s.sample;
  const ModelConfig config = read_model(all, s);
  if (const std::string slow = blas_warning(); warn && !slow.empty()) warn(slow);
  const Compute compute = resolve_compute(with_int8(config.compute, s.path, s.stored.tensors));
  others = std::make_unique<ModelFiles>(all, compute, std::filesystem::path(path).parent_path());
  std::vector<std::string> loras = o.loras;
  if (const Value* named = sample.is_map() ? sample.find("lora") : nullptr; named && loras.empty()) {
    Value only = Value::map();
    only.set("lora", *named);
    loras = read_section<Loras>(all, "sample", only, path, libraries).lora;
  }
  if (!s.yaml) {
    pipeline =
        std::make_unique<const Pipeline>(config.model, compute, StoredWeights{path, s.stored.tensors, s.stored.card.files, loras}, *others);
    return;
  }
  pipeline = std::make_unique<const Pipeline>(config.model, compute, 0, nullptr, *others);
  if (!pipeline->weightless())
    throw ConfigError(fmt::format("{}: its network has weights; train it, then sample the run's model.safetensors", path));
  merged_loras(loras, {}, compute.dtype);  // throws if there are any: nothing fits
}

Model::Model(std::shared_ptr<const Opened> opened) : opened_(std::move(opened)) {}

Model Model::open(const std::filesystem::path& path, const OpenOptions& o) {
  std::optional<WarningScope> warnings;
  if (o.warn) warnings.emplace(o.warn);
  const auto opened = std::make_shared<Opened>(o);
  Registry& registry = o.registry ? *o.registry : opened->own;
  for (const std::filesystem::path& library : o.plugins) load_plugin(registry, library);
  opened->load(registry, read_source(path, o), o);
  return Model(opened);
}

const Pipeline& Model::pipeline() const { return *opened_->pipeline; }
const ModelSource& Model::others() const { return *opened_->others; }
ImageShape Model::shape() const { return pipeline().options().image; }
ImageShape Model::latent() const { return pipeline().latent(); }

bool Model::captions() const { return pipeline().options().controls().captions; }

Value Model::Opened::configuration(const ImageRequest& request) const {
  Value root = Value::map();
  if (!sample.is_null()) root.set("sample", sample);
  const ModelOptions& model = pipeline->options();
  if (!request.like.empty()) {
    if (!root.find("sample")) root.set("sample", Value::map());
    const Likeness like = likeness(request.like, called(request.names, "like"), model);
    *root.find("sample") = merge(*root.find("sample"), like.sample);
  }
  apply_settings(*registry, request, root);
  if (request.mask.defined() && !model.conditioner->traits().masks) add_inpainting(*registry, root);
  return root;
}

SampleOptions Model::sampling(const ImageRequest& request) const {
  const Value root = opened_->configuration(request);
  const Value* section = root.find("sample");
  const auto options =
      read_section<SampleOptions>(*opened_->registry, "sample", section ? *section : Value(), opened_->path, opened_->libraries);
  check_located(root, [&] { options.check(pipeline().options()); });
  return options;
}

std::vector<std::string> Model::classes(const ImageRequest& request) const {
  return requestable_classes(pipeline(), sampling(request), others());
}

std::vector<Annotation> Model::annotations(const ImageRequest& request) const { return opened_->annotations(request, sampling(request)); }

std::vector<Annotation> Model::Opened::annotations(const ImageRequest& r, const SampleOptions& options) const {
  const std::vector<std::string> names = requestable_classes(*pipeline, options, *others);
  const Controls controls = pipeline->options().controls();
  return annotations_of(r, {int64_t(names.size()), controls.has_null, controls.captions}, names);
}

ImageShape Model::Opened::image_of(const ImageRequest& r) const {
  const ImageShape& own = pipeline->options().image;
  return {own.channels, r.height > 0 ? r.height : own.height, r.width > 0 ? r.width : own.width};
}

Model Model::Opened::refiner(const ImageRequest& r) const {
  const std::lock_guard guard(lock);
  const std::string file = r.refiner.string();
  if (const auto known = refiners.find(file); known != refiners.end()) return known->second;
  OpenOptions o = options;
  o.registry = const_cast<Registry*>(registry);
  o.plugins.clear(), o.loras.clear(), o.settings.clear();
  return refiners.emplace(file, Model::open(r.refiner, o)).first->second;
}

/// Throws ConfigError if the settings of a pass lack the pass, or if a refiner's network (Podell et al. 2023), which is conditioned on a
/// score instead of a target size and knows no composition, is to begin an image.
void Model::Opened::check_passes(const ImageRequest& r) const {
  constexpr int64_t refiners_sizes = 5;
  const auto needs = [&](bool given, std::string_view field, bool there, std::string_view other) {
    if (given && !there) throw ConfigError(fmt::format("{}: has no effect without {}", called(r.names, field), called(r.names, other)));
  };
  needs(r.refine_from.has_value(), "refine_from", !r.refiner.empty(), "refiner");
  needs(r.hires_strength.has_value(), "hires_strength", r.hires.has_value(), "hires");
  needs(!r.hires_of.empty(), "hires_of", r.hires.has_value(), "hires");
  needs(r.variation.has_value(), "variation", r.variation_seed.has_value(), "variation_seed");
  if (r.refine_from && !(*r.refine_from > 0 && *r.refine_from < 1))
    throw ConfigError(fmt::format("{}: {} is outside (0, 1)", called(r.names, "refine_from"), *r.refine_from));
  if (r.variation && !(*r.variation >= 0 && *r.variation <= 1))
    throw ConfigError(fmt::format("{}: {} is outside [0, 1]", called(r.names, "variation"), *r.variation));
  if (pipeline->options().conditioner->traits().size_ids == refiners_sizes && !r.image.defined() && !r.latents.defined())
    throw ConfigError(fmt::format("{}: is a refiner, which makes no image without a base model: it is the {} of one, or it refines {}",
                                  path, called(r.names, "refiner"), called(r.names, "image")));
}

void Model::Opened::set_image(const ImageRequest& r, SampleRequest& run) const {
  const auto need = [&](bool given, std::string_view field, const char* what) {
    if (given)
      throw ConfigError(fmt::format("{}: there is no image {}; {} names one", called(r.names, field), what, called(r.names, "image")));
  };
  run.latents = r.latents;
  if (r.latents.defined()) {
    run.strength = r.strength.value_or(0.6);
  } else if (!r.image.defined()) {
    need(r.mask.defined(), "mask", "it is laid over");
    need(r.strength.has_value(), "strength", "to start from");
  }
  if (!r.image.defined()) return;
  run.image = r.image;
  run.mask = r.mask;
  run.strength = r.strength.value_or(r.mask.defined() || pipeline->concat_image() ? 1 : 0.6);
}

SampleRequest Model::Opened::run_of(const ImageRequest& r, const SampleOptions& options) const {
  if (r.first > 0 && options.noise_order == NoiseOrder::batch)
    throw ConfigError(
        fmt::format("{} {}: noise order 'batch' draws the noise of all images at once, and a piece would not be what it is in the whole; "
                    "{} per_image makes a run in pieces",
                    called(r.names, "first"), r.first, called(r.names, "noise_order")));
  SampleRequest run;
  run.images = annotations(r, options);
  run.first = r.first;
  run.seed = r.seed;
  run.runs = r.runs;
  run.height = r.height;
  run.width = r.width;
  run.batch = r.batch;
  run.models = others.get();
  run.initial_noise = r.initial_noise;
  run.variation_seed = r.variation_seed;
  run.variation = r.variation.value_or(0.1);
  set_image(r, run);
  run.ended = r.ended;
  run.made = r.made;
  return run;
}

void Model::Opened::warn_of(const ImageRequest& r, const SampleOptions& o, const std::vector<Annotation>& images) const {
  const ImageShape latent = pipeline->autoencoder().latent(image_of(r));
  for (const std::string& text : unused_options(*registry, configuration(r), pipeline->options(), latent, o)) warn(text);
  for (const std::string& text : warnings_of(r, o, *pipeline, images)) warn(text);
}

Tensor Model::sample(const ImageRequest& r) const { return make(r, true); }
void Model::sample_batches(const ImageRequest& r) const { make(r, false); }

/// Returns the images if they are kept.
Tensor Model::make(const ImageRequest& r, bool keep) const {
  std::optional<WarningScope> warnings;
  if (opened_->warn) warnings.emplace(opened_->warn);
  opened_->check_passes(r);
  if (r.hires) return sample_hires(*this, r);
  SampleOptions options = sampling(r);
  SampleRequest run = opened_->run_of(r, options);
  const ImageSteps on_image = steps_on_image(r.like, options.steps, run.strength);
  options.steps = on_image.steps, run.strength = on_image.strength;
  std::optional<Model> refiner;
  SampleOptions refiner_options;
  if (!r.refiner.empty()) {
    refiner = opened_->refiner(r);
    refiner_options = refiner->sampling(r);
    run.refining = std::make_shared<const Refining>(Refining{refiner->pipeline(), refiner_options, refiner->others(), run.images,
                                                             r.refine_from.value_or(0.8), refines_by_steps(r.like)});
    if (const PromptOptions& p = refiner_options.prompts;
        p.clip_skips.size() > 1 || (p.changes && (!p.regions.empty() || changes(run.images, options.steps))))
      throw ConfigError(fmt::format("{}: cannot follow prompts that change (sample.prompts.{})", called(r.names, "refiner"),
                                    p.clip_skips.size() > 1 ? "clip_skips" : "changes"));
  }
  if (opened_->warn) opened_->warn_of(r, options, run.images);
  const int64_t count = int64_t(run.images.size()), steps = options.steps;
  const ImageShape image = opened_->image_of(r);
  if (r.progress)
    run.observer = [&](int64_t first, const Step& step) {
      const int64_t done = image_steps(first, steps, step);
      const auto preview = [&] { return decode_sampled(pipeline().autoencoder(), step.x0, image, options.tile).to(at::kFloat).cpu(); };
      return r.progress({done, count * steps, first, step, preview});
    };
  if (keep) return sample_images(pipeline(), run, options);
  brume::sample_batches(pipeline(), run, options);
  return {};
}

Tensor Model::encode(const Tensor& images) const {
  const at::NoGradGuard no_grad;
  const Autoencoder& autoencoder = pipeline().autoencoder();
  const Tensor moments = checked_moments(autoencoder, images.to(pipeline().compute().device, at::kFloat));
  return autoencoder.latents_of(moments, Autoencoder::Normal()).to(at::kFloat).cpu();
}

Tensor Model::decode(const Tensor& latents, int64_t tile) const {
  const at::NoGradGuard no_grad;
  const ImageShape image = shape(), z = latent();
  const ImageShape made{image.channels, latents.size(2) * image.height / z.height, latents.size(3) * image.width / z.width};
  const Tensor here = latents.to(pipeline().compute().device, at::kFloat);
  return decode_sampled(pipeline().autoencoder(), here, made, tile).to(at::kFloat).cpu();
}

namespace {
/// Returns a denoiser that keeps its model alive.
std::shared_ptr<const Denoiser> held(std::shared_ptr<const void> model, std::shared_ptr<const Denoiser> denoiser) {
  const auto both = std::make_shared<const std::pair<std::shared_ptr<const void>, std::shared_ptr<const Denoiser>>>(model, denoiser);
  return {both, denoiser.get()};
}
}  // namespace

std::shared_ptr<const Denoiser> Model::denoiser() const { return held(opened_, pipeline().denoiser()); }

std::shared_ptr<const Denoiser> Model::denoiser(const ImageRequest& request) const {
  return held(opened_, guided_denoiser(pipeline(), sampling(request), others()));
}

Condition Model::condition(const std::vector<Annotation>& annotations) const {
  std::optional<WarningScope> warnings;
  if (opened_->warn) warnings.emplace(opened_->warn);
  return pipeline().condition(annotations);
}

}  // namespace brume
