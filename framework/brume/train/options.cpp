#include "brume/train/options.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/config/number.h"
#include "brume/config/suggest.h"
#include "brume/core/adapter.h"
#include "brume/core/codes.h"
#include "brume/nn/blocks/patch_discriminator.h"
#include "brume/train/checkpoints.h"
#include "brume/train/run_log.h"

namespace brume {
namespace {

/// Reads the section `train:` as one of the tasks has it.
template <TrainOptions::Task task>
void train_section(Fields& f, std::optional<TrainOptions>& train) {
  struct OfTask : TrainOptions {
    void declare(Fields& fields) { TrainOptions::declare(fields, task); }
  };
  std::optional<OfTask> read;
  f.section("train", read, "how the model is trained");
  if (read) train = std::move(*read);
}

void check_objective(const Objective& objective, const ModelOptions& model) {
  if (of_codes(*model.parameterization) && !of_codes(objective))
    throw ConfigError("trains models of continuous data, and model.parameterization gives logits of codes; take mdlm or d3pm")
        .located({}, "train.objective");
  try {
    objective.check({*model.noise, *model.parameterization, model.variance});
  } catch (const ConfigError& e) {
    throw e.located({}, "train.objective");
  }
}

void check_log(const std::vector<std::string>& log) {
  const auto fail = [](const std::string& message) { throw ConfigError(message).located({}, "train.log"); };
  for (const std::string& word : log)
    if (std::find(log_words().begin(), log_words().end(), word) == log_words().end())
      fail(fmt::format("'{}' is not allowed{}", word, hint(word, log_words())));
  if (std::find(log.begin(), log.end(), "metrics") == log.end()) fail("lacks 'metrics', which resuming and keep_best need");
}

void check_stop_after(const std::string& duration) {
  try {
    if (!duration.empty()) seconds_of(duration);
  } catch (const ConfigError& e) {
    throw e.located({}, "train.stop_after");
  }
}

void check_loss(const ReconstructionOptions& loss, const ImageShape& image) {
  loss.perceptual_loss.check({image});
  if (!loss.adversarial) return;
  try {
    nn::logits_shape(image, loss.adversarial->layers);
  } catch (const ConfigError& e) {
    throw e.located({}, "train.loss.adversarial");
  }
}

}  // namespace

double seconds_of(const std::string& duration) {
  static const std::map<char, double> units{{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
  const auto unit = duration.empty() ? units.end() : units.find(duration.back());
  const auto number = unit == units.end() ? std::nullopt : parse_number<double>(std::string_view(duration).substr(0, duration.size() - 1));
  if (!number || !(*number > 0)) throw ConfigError(fmt::format("'{}' is no time like 90s, 15m, 3h or 2d", duration));
  return *number * unit->second;
}

void EmaOptions::declare(Fields& f) {
  f.choice("type", type,
           "exponential, or several averages whose length grows with the training (power), from which others are made afterwards",
           {{"exponential", Type::exponential}, {"power", Type::power}});
  f.field("std", std, "of power: lengths of the averages, over that of the training; the first is sampled and saved", within(1e-3, 0.28));
  f.field("decay", decay, "largest decay of the moving average of the weights", within(0, 1));
  f.choice("warmup", warmup, "warm-up of the decay: none, ratio = (1 + t) / (10 + t), power = 1 - (1 + t / inv_gamma)^-power",
           {{"none", Warmup::none}, {"ratio", Warmup::ratio}, {"power", Warmup::power}});
  f.field("inv_gamma", inv_gamma, "parameter of the power warm-up", more_than(0));
  f.field("power", power, "parameter of the power warm-up", more_than(0));
  f.unused(type == Type::exponential, "std", "type is exponential");
  f.unused(type == Type::power, {"decay", "warmup", "inv_gamma", "power"}, "type is power");
  f.unused(type == Type::exponential && warmup != Warmup::power, {"inv_gamma", "power"}, "warmup is not power");
  f.require(type == Type::exponential || !std.empty(), "std", "is empty; it takes one length per average");
}

void PreviewOptions::declare(Fields& f) {
  f.field("every", every, "steps between sample grids; 0 = none but the last", at_least(0));
  f.field("count", count, "images in the grid", within(0, 1024));
  f.field("columns", columns, "columns of the grid; 0 = as square as possible", at_least(0));
  f.field("steps", steps, "sampling steps", at_least(1));
  f.field("base", base, "shows each image next to the one that the weights made before the first step, of the same prompt and seed");
  f.field("prompts", prompts, "prompts of a model that is conditioned on captions, taken in turn; empty = captions of the training images");
  f.unused(count == 0, {"every", "columns", "steps", "prompts"}, "count is 0");
}

void PriorOptions::declare(Fields& f) {
  f.field("class_prompt", class_prompt, "prompt of the class, without the word of the subject (required)");
  f.field("class_data", class_data, "folder of the class images; the model makes those that it lacks (required)");
  f.field("class_images", class_images, "least number of class images", within(1, 1000000));
  f.field("loss_weight", loss_weight, "factor of the loss of class images (prior_loss_weight elsewhere)", at_least(0));
  f.require(!class_prompt.empty(), "class_prompt", "is missing, like 'photo of a cat'");
  f.require(!class_data.empty(), "class_data", "is missing: a folder for the class images");
}

void TestOptions::declare(Fields& f) { f.field("data", data, "images that are not trained on"); }

void ValidationOptions::declare(Fields& f) {
  f.field("data", data, "images that are not trained on");
  f.field("images", images, "images that are measured: the first so many", within(1, 1000000));
  f.field("levels", levels, "noise levels, evenly spaced in training time", within(1, 1000));
}

void AdversarialOptions::declare(Fields& f) {
  f.field("start", start, "step from which the discriminator is trained and counts", at_least(0));
  f.field("weight", weight, "weight of its loss, in addition to the balance of the gradients at the last layer", at_least(0));
  f.field("channels", channels, "channels of its first layer", within(1, 4096));
  f.field("layers", layers, "halvings: a logit sees a patch of 16, 34, 70, 142, ... pixels per side", within(1, 8));
}

void DiscriminatorOptions::declare(Fields& f) {
  f.field("optimizer", optimizer, "optimizer of the discriminator alone; its schedule counts from loss.adversarial.start");
  f.field("every", every, "steps per update of the discriminator", at_least(1));
}

void ReconstructionOptions::declare(Fields& f) {
  f.choice("pixel", pixel, "mean over pixels of the absolute error, or of its square", {{"l1", Pixel::l1}, {"l2", Pixel::l2}});
  f.renamed("perceptual", "perceptual_loss");
  f.field("perceptual_loss", perceptual_loss, "distance between what a network sees in the two images", "none");
  f.field("perceptual_weight", perceptual_weight, "weight of perceptual_loss", at_least(0));
  f.unused(perceptual_loss.neutral(), "perceptual_weight", "perceptual_loss is always 0");
  f.section("adversarial", adversarial, "a patch discriminator; absent: none");
}

void AlignmentOptions::declare(Fields& f) {
  f.field("features", features, "what images are described by: of their patches, or of the whole image if it has none of patches");
  f.field("block", block, "the block of the network whose output is aligned; empty = the last of the first third");
  f.field("weight", weight, "of the mean cosine, which is subtracted from the loss; 0 = it is measured alone", at_least(0));
  f.field("width", width, "channels within the projection, of three layers", within(1, 65536));
}

void LatentOptions::declare(Fields& f) {
  f.field("images", images, "training images that the scale of the latents is measured on", within(1, 1000000));
  f.field("center", center, "measure a shift as well, the mean");
}

void WeightGroupOptions::declare(Fields& f) {
  f.field("match", match, "weights by a pattern of their names, as in freeze; of several groups that match, the last counts (required)");
  f.field("lr", lr, "their learning rate, with the optimizer's warm-up and decay; absent: the optimizer's", at_least(0));
  f.field("weight_decay", weight_decay, "their weight decay; absent: the optimizer's", at_least(0));
}

void AdoptionOptions::declare(Fields& f) {
  f.field("classes", classes, "class of the source, by name or by number: the class here that starts with its rows");
  f.choice("new", new_rows, "rows of the classes that have none of the source's: the mean of its rows, 0, or drawn from the seed",
           {{"mean", NewRows::mean}, {"zero", NewRows::zero}, {"random", NewRows::random}});
  f.choice("input_channels", input_channels, "pad = channels of the input that the source lacks begin with weights of 0",
           {{"same", InputChannels::same}, {"pad", InputChannels::pad}});
  f.choice("head", head, "new = the last layer is drawn from the seed, for another parameterization, variance or number of channels",
           {{"same", Head::same}, {"new", Head::fresh}});
  f.field("left_out", left_out, "weights of the source that the model here has no place for, by patterns as in freeze");
  f.field("added", added, "weights here that the source lacks or has in another shape, by patterns: they are drawn from the seed");
}

namespace {

bool serves(TrainOptions::Task task, TrainOptions::Task one) { return task == one || task == TrainOptions::Task::any; }

/// Declares what a training starts with, and which weights it changes.
void declare_start(Fields& f, TrainOptions& o) {
  f.field("from", o.from,
          "a model whose weights the training starts with: a file of brume or of another program, or a directory of one; its "
          "section `model` (or `classifier`, `autoencoder`) may be left out here");
  f.section("adopt", o.adopt, "how weights of `from` fit a model of other shapes; absent: the model here is the source's");
  f.require(!o.adopt || !o.from.empty(), "adopt", "needs `from`, the model whose weights are taken over");
  f.field("train_only", o.train_only, "weights that are trained, by patterns as in freeze; empty = all");
  f.field("freeze", o.freeze,
          "weights that are not trained, by name: * stands for any characters, ? for one; a pattern that begins with ! takes "
          "weights away again that earlier ones matched");
  f.sections("groups", o.groups, "weights with their own learning rate and weight decay");
}

void declare_diffusion(Fields& f, TrainOptions& o) {
  f.field("adapters", o.adapters,
          "what is trained in addition to the weights of `from`, which stay as they are; empty = the weights are trained");
  f.field("triggers", o.triggers, "words that call what adapters learn; written to their files");
  f.require(o.adapters.empty() || !o.from.empty(), "adapters", "needs `from`, the model that they change");
  f.require(o.adapters.empty() || (!o.adopt && o.freeze.empty() && o.train_only.empty()), "adapters",
            "cannot stand with adopt, freeze or train_only: nothing else is trained");
  f.section("prior_preservation", o.prior,
            "DreamBooth: images of the class, made by the model before it is trained, alternate with those of the subject; absent: none");
  f.field("cache", o.cache,
          "a folder that keeps what the first stage makes of each image and frozen text encoders of each caption, from training to "
          "training; empty = nothing is kept");
  f.field("objective", o.objective, "the loss that is minimised", "simple");
  f.section("align", o.align, "REPA: a block of the network is drawn towards features of the clean images, and learns faster");
  f.require(o.adapters.empty() || !o.align, "align", "cannot stand with adapters");
  f.section("validation", o.validation, "images that are not trained on: the loss by noise level is measured on them, at checkpoints");
}

/// Declares what the trainings of classifiers and autoencoders have in addition.
void declare_others(Fields& f, TrainOptions& o, TrainOptions::Task task) {
  using Task = TrainOptions::Task;
  if (serves(task, Task::classifier) || serves(task, Task::autoencoder))
    f.section("test", o.test, "images that are not trained on: what a classifier or an autoencoder is measured on, at checkpoints");
  if (serves(task, Task::classifier))
    f.field("label_smoothing", o.label_smoothing, "share of the label that is spread over all classes", within(0, 1));
  if (serves(task, Task::autoencoder)) {
    f.section("loss", o.loss, "the loss of an autoencoder, in addition to the penalty of its network");
    f.section("discriminator", o.discriminator, "trains the discriminator with its own optimizer; absent: train.optimizer updates both");
    f.require(!o.discriminator || task == Task::any || o.loss.adversarial, "discriminator",
              "needs loss.adversarial, which makes a discriminator");
    f.section("latents", o.latents, "scale of an autoencoder's latents to unit variance, measured at every checkpoint");
  }
}

void declare_steps(Fields& f, TrainOptions& o) {
  f.field("optimizer", o.optimizer, "the optimizer and its learning rate schedule", "adamw");
  f.field("batch", o.batch, "images per step", within(1, 65536));
  f.field("accumulate", o.accumulate,
          "equal parts that each process computes its images in, one after the other: less memory, and the update of the whole batch",
          within(1, 65536));
  f.require(o.accumulate < 1 || o.batch % o.accumulate == 0, "accumulate", "must divide batch");
  f.choice("shard", o.shard, "optimizer = of several processes, each keeps and updates a part of the optimizer's state and of the averages",
           {{"none", TrainOptions::Shard::none}, {"optimizer", TrainOptions::Shard::optimizer}});
  f.field("timeout", o.timeout, "seconds after which a process that takes no part in a step ends the training of all", within(10, 1000000));
  f.field("stop_after", o.stop_after, "time after which the training stops with a checkpoint, like 90s, 15m, 3h or 2d; empty = never");
  f.field("steps", o.steps, "number of updates", at_least(1));
  f.field("epochs", o.epochs, "passes over the data, instead of steps; null = as steps says", more_than(0));
  f.require(!o.epochs || o.steps == TrainOptions().steps, "epochs", "give steps or epochs, not both");
  f.field("seed", o.seed, "seed of the weights, the order of the images and the noise", at_least(0));
  f.field("workers", o.workers, "threads that read batches ahead, in the same order whatever their number; 0 = none", within(0, 256));
}

/// Declares what a training writes.
void declare_outputs(Fields& f, TrainOptions& o) {
  f.field("log", o.log, "what the figures are written to: metrics (metrics.jsonl, always), tensorboard (an event file)");
  f.field("log_every", o.log_every, "steps between lines of metrics.jsonl", at_least(1));
  f.field("checkpoint_every", o.checkpoint_every, "steps between checkpoints; the last step always writes one", at_least(1));
  f.field("keep", o.keep.last, "newest checkpoints kept, in checkpoints/step_N; 1 = the last one alone, in the run directory",
          within(1, 1000000));
  f.field("keep_every", o.keep.every, "keeps the checkpoints of steps that are multiples of it as well; 0 = none", at_least(0));
  f.field("keep_best", o.keep.best, "keeps the best checkpoint as well: max or min and a figure of metrics.jsonl, like 'min test_loss'");
}

}  // namespace

void TrainOptions::declare(Fields& f, Task task) {
  declare_start(f, *this);
  f.field("data", data, "the training images");
  if (serves(task, Task::diffusion)) declare_diffusion(f, *this);
  declare_others(f, *this, task);
  declare_steps(f, *this);
  f.section("ema", ema, "moving average of the weights: what is sampled and saved");
  f.require(adapters.empty() || ema.type == EmaOptions::Type::exponential, "ema", "is exponential if adapters are trained");
  if (task != Task::classifier) f.section("preview", preview, "sample grids while training");
  declare_outputs(f, *this);
}

void Config::declare(Fields& f) {
  declare_sections(f, [&](int models) {
    if (models > 1)  // a mistake, or the schema, which has all
      train_section<TrainOptions::Task::any>(f, train);
    else if (classifier)
      train_section<TrainOptions::Task::classifier>(f, train);
    else if (autoencoder)
      train_section<TrainOptions::Task::autoencoder>(f, train);
    else
      train_section<TrainOptions::Task::diffusion>(f, train);
  });
}

namespace {

/// Throws ConfigError for options that have no meaning with model.control, with which the control alone is trained.
void check_control(const TrainOptions& t) {
  if (t.from.empty()) throw ConfigError("needs train.from, the model that it steers and that stays as it is").located({}, "model.control");
  for (const auto& [key, given] : {std::pair("adapters", !t.adapters.empty()), std::pair("adopt", t.adopt.has_value()),
                                   std::pair("freeze", !t.freeze.empty()), std::pair("train_only", !t.train_only.empty()),
                                   std::pair("align", t.align.has_value()), std::pair("validation", t.validation.has_value())})
    if (given) throw ConfigError("cannot stand with model.control, which is trained alone").located({}, fmt::format("train.{}", key));
  if (t.ema.type != EmaOptions::Type::exponential) throw ConfigError("is exponential if model.control is trained").located({}, "train.ema");
}

}  // namespace

void Config::check() const {
  ModelConfig::check();
  if (!train) return;
  if (compute.precision == Precision::int8)
    throw ConfigError("int8 is for evaluation; training computes in fp32 or bf16").located({}, "compute.precision");
  if (model.control) check_control(*train);
  try {
    if (!train->keep.best.empty()) best_by(train->keep.best);
  } catch (const ConfigError& e) {
    throw e.located({}, "train.keep_best");
  }
  if (train->objective) check_objective(*train->objective, model);
  train->data.check({image()});
  if (train->align) train->align->features.check({});
  if (autoencoder) check_loss(train->loss, image());
  check_log(train->log);
  check_stop_after(train->stop_after);
  if (train->validation) {
    train->validation->data.check({image()});
    if (model.conditioner->traits().image_channels)
      throw ConfigError("is not for models that are conditioned on images").located({}, "train.validation");
  }
  if (train->test) train->test->data.check({image()});
}

Config read_configuration(Registry& registry, const Value& root, Value* resolved) {
  Config config;
  read_into(
      config, registry, root, [&](Fields& f) { config.declare(f); }, [&] { config.check(); }, resolved);
  return config;
}

Config read_stored_configuration(Registry& registry, const Value& root, const std::string& file, const std::vector<std::string>& libraries,
                                 Value* resolved) {
  Config config;
  read_stored(registry, file, libraries, [&] { config = read_configuration(registry, root, resolved); });
  return config;
}

}  // namespace brume
