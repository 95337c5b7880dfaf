// A diffusion model that learns: Pipeline::loss, and sample grids.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "brume/config/counted.h"
#include "brume/config/foreign.h"
#include "brume/config/yaml.h"
#include "brume/core/control.h"
#include "brume/core/formed_weights.h"
#include "brume/core/joint_objective.h"
#include "brume/core/seed.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/class_names.h"
#include "brume/diffusion/fingerprint.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/image/control_image.h"
#include "brume/image/image.h"
#include "brume/numerics/noising.h"
#include "brume/train/alignment.h"
#include "brume/train/encoded_cache.h"
#include "brume/train/learner.h"
#include "brume/train/validation.h"

namespace brume {
namespace {

/// The control that is trained, for sample grids.
class SteeringControl final : public Control {
 public:
  explicit SteeringControl(const Steering& steering) : control_(steering.control) {
    settings_.file = "model.control";
    settings_.image = steering.image;
  }
  const ControlSettings& settings() const override { return settings_; }
  std::shared_ptr<const OpenControl> open(const ControlledModel&) const override { return control_; }

 private:
  ControlSettings settings_;
  std::shared_ptr<const OpenControl> control_;
};

class DiffusionLearner final : public Learner {
 public:
  DiffusionLearner(const Config& config, const Value& resolved, const Compute& compute, const Dataset& data, const LearnerOrigin& origin)
      : config_(config),
        resolved_(resolved),
        models_(origin.models),
        teachers_(origin.models, {config.model.class_names, "the model"}),
        pipeline_(config.model, compute, origin.seed, origin.stored, origin.models),
        files_(pipeline_.files()),
        examples_(origin.examples),
        training_{0, config.train->steps, config.train->objective->memory(*config.model.noise), &teachers_} {
    if (data.encoded()) check_encoded("train.data", *data.encoded());
    if (const Buckets* buckets = buckets_of(data)) check_buckets(*buckets);
    if (const std::string plugin = plugin_name(config.train->objective.get()); config.train->accumulate > 1 && !plugin.empty())
      warn(fmt::format("train.accumulate: the parts of a batch get the same noise if {} does not draw it by draw_rows()", plugin));
    if (pipeline_.weightless()) throw ConfigError("model.network has no weights: there is nothing to train");
    open_objective(origin.seed);
    if (config.train->align) {
      if (data.encoded()) throw ConfigError("needs images, and train.data holds latents").located({}, "train.align");
      warn_of_checkpoint("train.align, which reads what a block computes");
      alignment_.emplace(*config.train->align, pipeline_, models_, mix_seed(origin.seed, 7));
    }
    if (config.model.control) {
      if (data.encoded()) throw ConfigError("needs images, and train.data holds latents").located({}, "model.control");
      warn_of_checkpoint("model.control, which adds to what blocks compute");
    }
    if (!config.train->cache.empty()) open_cache(data);
    if (config_.train->validation) open_validation(*config_.train->validation);
    if (config_.model.conditioner->traits().captions) prompts_ = config_.train->preview.prompts;
    if (config_.model.conditioner->traits().captions && prompts_.empty())
      for (const Annotation& a : examples_.annotations) prompts_.push_back(a.caption);
    if (config_.train->preview.count > 0) classes_ = requestable_classes(pipeline_, config_.sample, models_);
    if (config_.train->preview.count > 0)
      guided_denoiser(pipeline_, config_.sample, models_);  // its mistakes are found before the first step
  }

  std::vector<TrainedModule> modules() const override {
    std::vector<TrainedModule> all{model_module(pipeline_.weights(), *config_.train)};
    if (opened_) {
      all.front().every = opened_->model_every();
      for (const Companion& c : opened_->companions())
        all.push_back({.name = c.name, .weights = prefixed(c.name + ".", c.weights), .optimizer = c.optimizer});
    }
    if (alignment_) all.push_back({.name = "align", .weights = prefixed("align.", alignment_->weights())});
    return all;
  }

  Loss loss(const Batch& batch, int64_t step, at::Generator& random) override {
    training_.step = step;
    pipeline_.network().normalize_weights();
    const Objective& objective = opened_ ? *opened_ : *config_.train->objective;
    const Taps taps = alignment_ ? alignment_->taps() : Taps();
    const nn::CaptionStoreScope captions(cache_ ? &*cache_ : nullptr);
    Pipeline::Examples known{batch.images, batch.annotations, batch.encoded, read_by()};
    if (cache_ && !batch.encoded) known.moments = cache_->moments(batch.images);
    Loss loss;
    const ErrorWeights weights(batch.weights);
    loss.loss = pipeline_.loss(objective, known, training_, random, taps, steered(batch.images));
    if (batch.weights.defined() && !weights.used())
      throw ConfigError(
          "train.objective: does not measure the error pixel by pixel, which masks and loss weights of train.data need; "
          "simple, edm, edm2 and flow do");
    if (cache_) check_cache();
    if (opened_) loss.metrics = opened_->figures();
    if (!alignment_) return loss;
    const Tensor cosine = alignment_->cosine(batch.images);
    if (cosine.defined()) loss.loss = loss.loss - cosine * config_.train->align->weight;
    loss.metrics.emplace_back("alignment", alignment_->figure());
    return loss;
  }

  void teach(const std::vector<Word>& words) override { reading_.words = words; }
  const Pipeline* pipeline() const override { return &pipeline_; }
  void steer(const Steering& steering) override { steering_ = steering; }
  std::vector<Weight> state() const override { return training_.memory; }

  Metrics test(const std::vector<Weight>& averaged, const std::function<bool()>& stop) override {
    if (!validation_) return {};
    Averaged now;
    put(averaged, now);
    const TrainOptions& train = *config_.train;
    return validation_losses(*now.model, *validation_, {*train.validation, images_at_once(train), uint64_t(train.seed), read_by()}, stop);
  }

  bool preview(const std::vector<Weight>& averaged, const std::filesystem::path& file) override {
    const PreviewOptions& p = config_.train->preview;
    if (p.count == 0) return false;
    Shown shown = show(averaged);
    const int64_t square = int64_t(std::ceil(std::sqrt(double(shown.tiles.size()))));
    int64_t columns = p.columns > 0 ? p.columns : square;
    if (p.base && paired(shown, file.parent_path() / base_preview)) columns = 2 * (p.columns > 0 ? p.columns : (square + 1) / 2);
    if (steering_.control) show_hints(file.parent_path() / control_preview, square);
    write_png(file.string(), shown.labels.empty() ? grid(shown.tiles, columns) : labelled_grid(shown.tiles, columns, shown.labels));
    return true;
  }

  void keep_base(const std::vector<Weight>& averaged, const std::filesystem::path& folder) override {
    if (config_.train->preview.count == 0) return;
    const std::vector<Image> tiles = show(averaged).tiles;
    write_png((folder / base_preview).string(), grid(tiles, int64_t(tiles.size()), 0));
  }

  ModelCard card(const std::vector<Weight>&) override {
    ModelCard card{*resolved_.find("model"), *resolved_.find("sample"), 0, config_.model_plugins};
    if (const auto first_stage = pipeline_.autoencoder().stored_as())
      card.model.set("autoencoder", parse_yaml(*first_stage, "autoencoder"));
    card.model.erase("control");
    card.files = files_;
    return card;
  }

 private:
  /// The images of a sample grid, and the text above each.
  struct Shown {
    std::vector<Image> tiles;
    std::vector<std::string> labels;
  };
  Shown show(const std::vector<Weight>& averaged) {
    const PreviewOptions& p = config_.train->preview;
    Averaged now;
    put(averaged, now);
    Shown shown;
    SampleRequest request;
    const int64_t classes = int64_t(classes_.size());
    for (int64_t i = 0; i < p.count; ++i) {
      Annotation& image = request.images.emplace_back();
      if (classes > 0) image.label = steering_.control ? example(i).label : i % classes;
      if (!prompts_.empty()) image.caption = prompts_[size_t(i) % prompts_.size()];
      if (classes > 0 || !prompts_.empty()) shown.labels.push_back(prompts_.empty() ? classes_[size_t(image.label)] : image.caption);
    }
    give_images(request);
    request.models = &models_;
    if (config_.sample.noise_order != NoiseOrder::batch) request.batch = std::min(request.batch, images_at_once(*config_.train));
    SampleOptions options = config_.sample;
    options.steps = p.steps;
    options.prompts.words = reading_.words;
    if (steering_.control) {
      options.control.push_back(std::make_shared<SteeringControl>(steering_));
      request.control_source = shown_examples(p.count);
    }
    const Tensor images = sample_images(*now.model, request, options);
    for (int64_t i = 0; i < images.size(0); ++i) shown.tiles.push_back(to_image(images[i]));
    return shown;
  }

  /// Puts the tile of the base in front of each. Returns false, with a warning, if keep_base() has not written them.
  static bool paired(Shown& shown, const std::filesystem::path& file) {
    const Image& first = shown.tiles.front();
    const int64_t count = int64_t(shown.tiles.size());
    Image row;
    if (std::filesystem::is_regular_file(file)) row = read_image(file.string(), first.channels);
    if (row.height != first.height || row.width != first.width * count) {
      warn(fmt::format("train.preview.base: '{}' does not have these {}; they are made at the first step alone", file.string(),
                       counted(count, "image")));
      return false;
    }
    Shown pairs;
    for (int64_t i = 0; i < count; ++i) {
      Image base(first.height, first.width, first.channels);
      const int64_t bytes = first.width * first.channels;
      for (int64_t y = 0; y < first.height; ++y) std::copy_n(row.row(y) + i * bytes, bytes, base.row(y));
      pairs.tiles.push_back(std::move(base));
      pairs.tiles.push_back(std::move(shown.tiles[size_t(i)]));
      pairs.labels.push_back("base");
      pairs.labels.push_back(shown.labels.empty() ? "trained" : shown.labels[size_t(i)]);
    }
    shown = std::move(pairs);
    return true;
  }

  /// Gives what a sample grid knows of the images: nothing, or, if the model makes images out of others, all but the middle of examples.
  void give_images(SampleRequest& request) const {
    const ImageShape& shape = config_.model.image;
    const bool concat = pipeline_.concat_image(), masks = !concat || config_.model.conditioner->traits().masks;
    if (masks) request.mask = at::ones({1, 1, shape.height, shape.width});
    request.image = at::zeros({1, shape.channels, shape.height, shape.width});
    if (!concat || examples_.encoded || !examples_.images.defined()) return;
    if (masks) request.mask.zero_().narrow(2, shape.height / 4, shape.height / 2).narrow(3, shape.width / 4, shape.width / 2).fill_(1);
    request.image = shown_examples(int64_t(request.images.size()));
  }
  const Annotation& example(int64_t i) const { return examples_.annotations[size_t(i) % examples_.annotations.size()]; }
  /// Writes what steers the images of sample grids, once.
  void show_hints(const std::filesystem::path& file, int64_t columns) const {
    if (std::filesystem::exists(file)) return;
    std::vector<Image> tiles;
    const Tensor hints = control_images(shown_examples(config_.train->preview.count), steering_.image);
    for (int64_t i = 0; i < hints.size(0); ++i) tiles.push_back(to_image(hints[i] * 2 - 1));
    write_png(file.string(), grid(tiles, columns));
  }
  /// Returns so many images, the examples in turn.
  Tensor shown_examples(int64_t count) const {
    return examples_.images.index_select(0, at::arange(count).remainder(examples_.images.size(0)));
  }

  /// Returns what adds the control's residuals to each call of the network for these images; empty if nothing steers.
  CallTaps steered(const Tensor& images) const {
    if (!steering_.control) return {};
    const std::vector<Tensor> hints = steering_.control->encode(control_images(images, steering_.image));
    return [this, hints](Taps taps, double, const Tensor& input, const Tensor& c_noise, const Condition& condition) {
      if (input.size(0) != hints.front().size(0))
        throw ConfigError(
            "calls the network with a part of the images, and model.control has one hint per image; simple, edm and flow do not")
            .located({}, "train.objective");
      steering_.control->add_to(taps, {input, c_noise, condition, hints, no_mask_, 1});
      return taps;
    };
  }

  void warn_of_checkpoint(const char* user) const {
    if (nearest(resolved_, "model.network.checkpoint").scalar == "true")
      warn(fmt::format("model.network.checkpoint has no effect with {}", user));
  }

  void check_buckets(const Buckets& buckets) const {
    const int64_t step = pipeline_.network().multiple() * (config_.model.image.height / pipeline_.latent().height);
    for (const ImageShape& shape : buckets.buckets())
      if (shape.height % step || shape.width % step)
        throw ConfigError(
            fmt::format("train.data has a bucket of {}, and the network takes images whose sides are multiples of {}", shape.text(), step));
  }

  /// Makes the networks that the objective trains with the model, if it has any.
  void open_objective(uint64_t seed) {
    const auto* joint = dynamic_cast<const JointObjective*>(config_.train->objective.get());
    if (!joint) return;
    const Compute& compute = pipeline_.compute();
    opened_ = joint->open({config_.model.network_context(pipeline_.latent(), mix_seed(seed, 6)), config_.model.network,
                           pipeline_.network().weights(), compute.device, compute.dtype});
  }

  void open_cache(const Dataset& data) {
    cache_.emplace(config_.train->cache, pipeline_, config_.model.autoencoder.type());
    images_ = data.size();
  }

  /// Warns of a cache that nothing goes through, or that every image is new to.
  void check_cache() {
    const EncodedCache::Account& a = cache_->account();
    if (a.images + a.captions == 0 && !std::exchange(warned_of_cache_, true))
      warn("train.cache has no effect: no first stage encodes these images, and no frozen text encoder their captions");
    if (images_ > 0 && a.images_encoded > 4 * images_ && !std::exchange(warned_of_cache_, true))
      warn(fmt::format("train.cache: {} were encoded of a set of {}; crops and flips that are drawn make each reading another image",
                       counted(a.images_encoded, "image"), images_));
  }

  void open_validation(const ValidationOptions& options) {
    validation_ = options.data.make({config_.model.image});
    if (validation_->encoded()) check_encoded("train.validation.data", *validation_->encoded());
    if (!config_.model.class_names.empty())
      validation_ = with_classes(validation_, "train.validation.data", {config_.model.class_names, "the model"});
  }

  /// Moments of another first stage mean nothing to this one.
  void check_encoded(const std::string& name, const EncodedSet& set) const {
    const Autoencoder& first_stage = pipeline_.autoencoder();
    const std::string own = fingerprint(first_stage, config_.model.autoencoder.type());
    if (set.autoencoder != own)
      throw ConfigError(fmt::format("{} was encoded by the first stage {}, and model.autoencoder is {}; encode the images again", name,
                                    set.autoencoder, own));
    const ImageShape wanted = first_stage.moments(config_.model.image);
    if (set.shape != wanted)
      throw ConfigError(fmt::format("{} holds moments of {}, and those of model.image are {}", name, set.shape.text(), wanted.text()));
  }

  /// A model of averaged weights for as long as it is looked at.
  struct Averaged {
    std::unique_ptr<Pipeline> model;
    FormedWeights formed;
  };

  /// Puts the weights into a model, in their own memory; those that adapters change are formed at each use.
  void put(const std::vector<Weight>& averaged, Averaged& into) const {
    const at::NoGradGuard no_grad;
    into.model = std::make_unique<Pipeline>(config_.model, pipeline_.compute(), 0, &files_, models_);
    const std::vector<Weight> weights = into.model->weights();
    const auto stays_formed = [&](size_t i) { return weights[i].any_dtype && FormedWeights::has(averaged[i].tensor); };
    for (size_t i = 0; i < weights.size(); ++i)
      if (!stays_formed(i)) Tensor(weights[i].tensor).set_data(FormedWeights::of(averaged[i].tensor).detach());
    into.model->freeze();
    for (size_t i = 0; i < weights.size(); ++i)
      if (stays_formed(i)) into.formed.add(weights[i].tensor, [w = averaged[i].tensor] { return FormedWeights::of(w); });
  }

  Config config_;
  Value resolved_;
  const ModelSource& models_;
  SameClasses teachers_;
  Pipeline pipeline_;
  Files files_;
  Batch examples_;  ///< what sample grids are made after
  std::vector<std::string> prompts_, classes_;
  Training training_;
  std::unique_ptr<OpenObjective> opened_;  ///< of an objective with networks of its own
  std::optional<Alignment> alignment_;
  /// Returns how captions are read; null if no word is taught.
  const PromptReading* read_by() const { return reading_.words.empty() ? nullptr : &reading_; }

  PromptReading reading_;  ///< with the words that are taught
  Steering steering_;      ///< of model.control
  const Tensor no_mask_;
  std::shared_ptr<const Dataset> validation_;
  std::optional<EncodedCache> cache_;
  int64_t images_ = 0;  ///< of the training set; 0 = endless
  bool warned_of_cache_ = false;
};

}  // namespace

std::unique_ptr<Learner> make_diffusion_learner(const Config& config, const Value& resolved, const Compute& compute, const Dataset& data,
                                                const LearnerOrigin& origin) {
  return std::make_unique<DiffusionLearner>(config, resolved, compute, data, origin);
}

}  // namespace brume
