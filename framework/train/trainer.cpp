#include "train/trainer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "config/yaml.h"
#include "io/atomic_file.h"
#include "io/image.h"
#include "io/model_file.h"
#include "io/safetensors.h"
#include "train/progress.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

/// Streams of random numbers under the training's seed.
enum Stream : uint64_t { weights = 20, order = 21, steps = 22 };

std::vector<Weight> trainable(const std::vector<Weight>& all) {
  std::vector<Weight> some;
  for (const Weight& w : all)
    if (w.trainable) some.push_back(w);
  return some;
}

void prepare_directory(const fs::path& directory, bool resuming) {
  if (!resuming && fs::exists(directory / "training.safetensors"))
    throw ConfigError(fmt::format("{}: holds a training already; continue it with --resume, or name another directory with --out",
                                  directory.string()));
  std::error_code error;
  fs::create_directories(directory / "samples", error);
  if (error) throw ConfigError(fmt::format("{}: cannot be made: {}", directory.string(), error.message()));
}

/// Lines of metrics after the step a training is resumed from belong to a future that is not taken.
void trim_metrics(const fs::path& file, int64_t step) {
  std::ifstream in(file);
  if (!in) return;
  std::string kept, line;
  while (std::getline(in, line)) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object() && json.value("step", int64_t(0)) <= step) kept += line + "\n";
  }
  io::write_file(file.string(), kept);
}

}  // namespace

Trainer::Trainer(const Config& config, Value resolved, fs::path directory, const fs::path& resume_from)
    : config_(config), resolved_(std::move(resolved)), directory_(std::move(directory)) {
  const TrainOptions& t = *config_.train;
  compute_ = resolve_compute(config_.compute);
  data_ = t.data.make({config_.model.image});
  const int64_t classes = config_.model.conditioner->classes();
  if (classes > 0 && int64_t(data_->classes().size()) != classes)
    throw ConfigError(fmt::format("model.conditioner has {} classes and train.data has {}", classes, data_->classes().size()));
  if (config_.model.class_names.empty() && classes > 0) {  // the checkpoint knows its classes by name
    config_.model.class_names = data_->classes();
    Value names = Value::list();
    for (const std::string& name : data_->classes()) names.items.push_back(Value::text(name, true));
    resolved_.find("model")->set("class_names", std::move(names));
  }
  prepare_directory(directory_, !resume_from.empty());
  const uint64_t seed = uint64_t(t.seed);
  pipeline_ = std::make_unique<Pipeline>(config_.model, compute_, mix_seed(seed, Stream::weights));
  if (pipeline_->weightless()) throw ConfigError("model.network has no weights: there is nothing to train");
  ema_ = std::make_unique<Ema>(pipeline_->weights(), t.ema);
  optimizer_ = t.optimizer.make({trainable(pipeline_->weights()), t.steps});
  for (Weight& w : pipeline_->weights())
    if (w.trainable) w.tensor.set_requires_grad(true);
  if (!resume_from.empty()) restore(resume_from);
  loader_ = std::make_unique<Loader>(data_, config_.model.image, t.batch, mix_seed(seed, Stream::order), step_);
  io::write_file((directory_ / "config.yaml").string(), dump_yaml(resolved_));
  trim_metrics(directory_ / "metrics.jsonl", step_);
}

Trainer::~Trainer() = default;

double Trainer::train_step() {
  const Batch batch = loader_->next();
  at::Generator random = at::detail::createCPUGenerator(mix_seed(uint64_t(config_.train->seed), Stream::steps, uint64_t(step_)));
  const at::AutoGradMode with_grad(true);
  const Tensor loss = pipeline_->loss(*config_.train->objective, batch.images, batch.annotations, random);
  loss.backward();
  norm_ = optimizer_->update(step_);
  if (std::isfinite(norm_)) {
    ema_->update(step_);
    bad_steps_ = 0;
  } else if (++bad_steps_ >= 20) {
    throw ConfigError(fmt::format("the gradient has not been finite for {} steps (now {}); a lower train.optimizer.lr may help, the last "
                                  "checkpoint is untouched", bad_steps_, step_));
  }
  ++step_;
  return loss.item<double>();
}

bool Trainer::run(const std::function<bool()>& stop) {
  const TrainOptions& t = *config_.train;
  Progress progress("train", t.steps, "images", step_);
  double sum = 0, shown = 0;
  int64_t summed = 0;
  while (step_ < t.steps) {
    if (stop && stop()) {
      progress.finish();
      save();
      return false;
    }
    const double loss = train_step();
    sum += loss;
    ++summed;
    shown = shown == 0 ? loss : 0.98 * shown + 0.02 * loss;
    progress.update(step_, double(t.batch), fmt::format("loss {:.4f}", shown));
    const bool last = step_ == t.steps;
    if (step_ % t.log_every == 0 || last) {
      log(sum / double(summed), norm_, progress.rate());
      sum = 0, summed = 0;
    }
    if (step_ % t.checkpoint_every == 0 || last) save();
    if (t.preview.count > 0 && (last || (t.preview.every > 0 && step_ % t.preview.every == 0))) preview();
  }
  return true;
}

void Trainer::log(double loss, double norm, double rate) {
  nlohmann::ordered_json line{{"step", step_}, {"loss", loss}, {"grad_norm", norm}, {"lr", optimizer_->learning_rate(step_ - 1)},
                              {"ema_decay", ema_->decay(step_ - 1)}, {"images_per_second", rate}};
  std::ofstream out(directory_ / "metrics.jsonl", std::ios::app);
  out << line.dump() << "\n";
  if (!out.flush()) throw ConfigError(fmt::format("{}: cannot be written", (directory_ / "metrics.jsonl").string()));
}

fs::path Trainer::preview() {
  const at::NoGradGuard no_grad;
  const TrainOptions& t = *config_.train;
  if (!averaged_) {
    averaged_ = std::make_unique<Pipeline>(config_.model, compute_, 0);
    averaged_->freeze();
  }
  const std::vector<Weight> into = averaged_->weights();
  for (size_t i = 0; i < into.size(); ++i) Tensor(into[i].tensor).copy_(ema_->shadow()[i].tensor);
  SampleRequest request;
  request.seed = t.preview.seed;
  std::vector<std::string> labels;
  const int64_t classes = config_.model.conditioner->classes();
  for (int64_t i = 0; i < t.preview.count; ++i) {
    request.images.push_back({classes > 0 ? i % classes : -1, ""});
    if (classes > 0) labels.push_back(config_.model.class_names[size_t(i % classes)]);
  }
  SampleOptions options = config_.sample;
  options.steps = t.preview.steps;
  const Tensor images = averaged_->sample(request, options);
  std::vector<io::Image> tiles;
  for (int64_t i = 0; i < images.size(0); ++i) tiles.push_back(io::to_image(images[i]));
  const int64_t columns = t.preview.columns > 0 ? t.preview.columns : int64_t(std::ceil(std::sqrt(double(tiles.size()))));
  const fs::path file = directory_ / "samples" / fmt::format("step_{:06}.png", step_);
  io::write_png(file.string(), labels.empty() ? io::grid(tiles, columns) : io::labelled_grid(tiles, columns, labels));
  return file;
}

std::vector<Weight> Trainer::training_state() const {
  std::vector<Weight> all;
  for (const Weight& w : pipeline_->weights()) all.push_back({"weights." + w.name, w.tensor, false});
  for (const Weight& w : ema_->shadow()) all.push_back({"ema." + w.name, w.tensor, false});
  for (const Weight& w : optimizer_->state()) all.push_back({"optimizer." + w.name, w.tensor, false});
  return all;
}

void Trainer::save() {
  const Value* model = resolved_.find("model");
  const Value* sample = resolved_.find("sample");
  save_model((directory_ / "model.safetensors").string(), ema_->shadow(), {*model, *sample, step_, config_.plugins});
  io::NamedTensors state;
  for (const Weight& w : training_state()) state.push_back({w.name, w.tensor.detach()});
  io::write_safetensors((directory_ / "training.safetensors").string(), state,
                        {{"format", "brume-training"},
                         {"brume.format", std::to_string(model_format)},
                         {"brume.version", BRUME_VERSION},
                         {"brume.config", dump_yaml(resolved_)},
                         {"brume.step", std::to_string(step_)}});
}

void Trainer::restore(const fs::path& file) {
  load_weights(file.string(), training_state());
  std::map<std::string, std::string> metadata;
  io::load_tensors(file.string(), &metadata);
  step_ = std::stoll(metadata.at("brume.step"));
}

Value training_configuration(const fs::path& file) {
  std::map<std::string, std::string> metadata;
  io::load_tensors(file.string(), &metadata);
  const auto it = metadata.find("brume.config");
  if (it == metadata.end())
    throw ConfigError(fmt::format("{}: not a training file (resuming needs training.safetensors, not the model)", file.string()));
  if (std::stoll(metadata["brume.format"]) > model_format)
    throw ConfigError(fmt::format("{}: written by brume {} in format {}; this is brume {}, which reads up to format {}", file.string(),
                                  metadata["brume.version"], metadata["brume.format"], BRUME_VERSION, model_format));
  return parse_yaml(it->second, file.string());
}

}  // namespace brume
