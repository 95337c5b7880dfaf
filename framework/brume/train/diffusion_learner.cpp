// A diffusion model that learns: Pipeline::loss, and sample grids.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/config/foreign.h"
#include "brume/config/yaml.h"
#include "brume/core/joint_objective.h"
#include "brume/core/seed.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/class_names.h"
#include "brume/diffusion/fingerprint.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/image/image.h"
#include "brume/train/alignment.h"
#include "brume/train/learner.h"
#include "brume/train/validation.h"

namespace brume {
namespace {

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
      alignment_.emplace(*config.train->align, pipeline_, models_, mix_seed(origin.seed, 7));
    }
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
    Loss loss;
    loss.loss = pipeline_.loss(objective, {batch.images, batch.annotations, batch.encoded, reading_.words.empty() ? nullptr : &reading_},
                               training_, random, taps);
    if (opened_) loss.metrics = opened_->figures();
    if (!alignment_) return loss;
    const Tensor cosine = alignment_->cosine(batch.images);
    if (cosine.defined()) loss.loss = loss.loss - cosine * config_.train->align->weight;
    loss.metrics.emplace_back("alignment", alignment_->figure());
    return loss;
  }

  void teach(const std::vector<Word>& words) override { reading_.words = words; }
  std::vector<Weight> state() const override { return training_.memory; }

  Metrics test(const std::vector<Weight>& averaged, const std::function<bool()>& stop) override {
    if (!validation_) return {};
    take(averaged);
    return validation_losses(*averaged_, *validation_, *config_.train->validation, uint64_t(config_.train->seed), stop);
  }

  bool preview(const std::vector<Weight>& averaged, const std::filesystem::path& file) override {
    const PreviewOptions& p = config_.train->preview;
    if (p.count == 0) return false;
    take(averaged);
    SampleRequest request;
    std::vector<std::string> labels;
    const int64_t classes = int64_t(classes_.size());
    for (int64_t i = 0; i < p.count; ++i) {
      Annotation& image = request.images.emplace_back();
      if (classes > 0) image.label = i % classes;
      if (!prompts_.empty()) image.caption = prompts_[size_t(i) % prompts_.size()];
      if (classes > 0 || !prompts_.empty()) labels.push_back(prompts_.empty() ? classes_[size_t(image.label)] : image.caption);
    }
    give_images(request);
    request.models = &models_;
    SampleOptions options = config_.sample;
    options.steps = p.steps;
    options.prompts.words = reading_.words;
    const Tensor images = sample_images(*averaged_, request, options);
    std::vector<Image> tiles;
    for (int64_t i = 0; i < images.size(0); ++i) tiles.push_back(to_image(images[i]));
    const int64_t columns = p.columns > 0 ? p.columns : int64_t(std::ceil(std::sqrt(double(tiles.size()))));
    write_png(file.string(), labels.empty() ? grid(tiles, columns) : labelled_grid(tiles, columns, labels));
    return true;
  }

  ModelCard card(const std::vector<Weight>&) override {
    ModelCard card{*resolved_.find("model"), *resolved_.find("sample"), 0, config_.model_plugins};
    if (const auto first_stage = pipeline_.autoencoder().stored_as())
      card.model.set("autoencoder", parse_yaml(*first_stage, "autoencoder"));
    card.files = files_;
    return card;
  }

 private:
  /// What of the images a sample grid knows: nothing, or, if the model makes images out of others, all but the middle of examples.
  void give_images(SampleRequest& request) const {
    const ImageShape& shape = config_.model.image;
    const bool concat = pipeline_.concat_image(), masks = !concat || config_.model.conditioner->traits().masks;
    if (masks) request.mask = at::ones({1, 1, shape.height, shape.width});
    request.image = at::zeros({1, shape.channels, shape.height, shape.width});
    if (!concat || examples_.encoded || !examples_.images.defined()) return;
    if (masks) request.mask.zero_().narrow(2, shape.height / 4, shape.height / 2).narrow(3, shape.width / 4, shape.width / 2).fill_(1);
    const Tensor numbers = at::arange(int64_t(request.images.size())).remainder(examples_.images.size(0));
    request.image = examples_.images.index_select(0, numbers);
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

  void take(const std::vector<Weight>& averaged) {
    const at::NoGradGuard no_grad;
    if (!averaged_) {
      averaged_ = std::make_unique<Pipeline>(config_.model, pipeline_.compute(), 0, &files_, models_);
      averaged_->freeze();
    }
    const std::vector<Weight> into = averaged_->weights();
    for (size_t i = 0; i < into.size(); ++i) Tensor(into[i].tensor).copy_(averaged[i].tensor);
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
  PromptReading reading_;  ///< with the words that are taught
  std::unique_ptr<Pipeline> averaged_;
  std::shared_ptr<const Dataset> validation_;
};

}  // namespace

std::unique_ptr<Learner> make_diffusion_learner(const Config& config, const Value& resolved, const Compute& compute, const Dataset& data,
                                                const LearnerOrigin& origin) {
  return std::make_unique<DiffusionLearner>(config, resolved, compute, data, origin);
}

}  // namespace brume
