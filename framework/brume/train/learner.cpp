#include "brume/train/learner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/counted.h"
#include "brume/core/loss_weights.h"
#include "brume/diffusion/class_names.h"

namespace brume {

TrainedModule model_module(std::vector<Weight> weights, const TrainOptions& train) {
  return {.name = "", .weights = std::move(weights), .optimizer = train.optimizer, .ema = train.ema};
}

int64_t images_at_once(const TrainOptions& train) { return std::max<int64_t>(1, train.batch / train.accumulate); }

namespace {

const char* section_of(const Config& config) { return config.classifier ? "classifier" : "model"; }

std::vector<std::string>& class_names(Config& config) {
  return config.classifier ? config.classifier->class_names : config.model.class_names;
}

void set_class_names(Config& config, Value& resolved, const std::vector<std::string>& names) {
  class_names(config) = names;
  Value list = Value::list();
  for (const std::string& name : names) list.items.push_back(Value::text(name, true));
  resolved.find(section_of(config))->set("class_names", std::move(list));
}

}  // namespace

std::shared_ptr<const Dataset> labelled(Config& config, Value& resolved, std::shared_ptr<const Dataset> data, const Value& stored) {
  const Value* section = config.autoencoder ? nullptr : stored.find(section_of(config));
  const Value* known = section ? section->find("class_names") : nullptr;
  const bool others = config.train->adopt && !config.train->adopt->classes.empty();
  if (!others && known && known->is_list() && !known->items.empty() && class_names(config).empty()) {
    std::vector<std::string> names;
    for (const Value& name : known->items) names.push_back(name.scalar);
    set_class_names(config, resolved, names);
  }
  if (config.autoencoder || class_names(config).size() != data->classes().size()) return data;  // make_learner() compares the numbers
  return with_classes(std::move(data), "train.data", {class_names(config), fmt::format("{}.class_names", section_of(config))});
}

void set_steps_of_epochs(Config& config, Value& resolved, const Dataset& data) {
  TrainOptions& t = *config.train;
  if (!t.epochs) return;
  if (data.size() == 0) throw ConfigError("train.epochs: the data set makes images without end; give train.steps instead");
  t.steps = std::max<int64_t>(1, std::llround(std::ceil(*t.epochs * double(data.size()) / double(t.batch) - 1e-9)));
  t.epochs.reset();  // a later part of the training may have other steps
  Value& section = *resolved.find("train");
  section.set("steps", Value::text(fmt::format("{}", t.steps)));
  section.set("epochs", Value());
}

std::unique_ptr<Learner> make_learner(Config& config, Value& resolved, const Compute& compute, const std::shared_ptr<const Dataset>& set,
                                      const LearnerOrigin& origin) {
  const Dataset& data = *set;
  if (data.encoded() && (config.autoencoder || config.classifier))
    throw ConfigError(
        fmt::format("train.data holds latents, and {} learns from images", config.autoencoder ? "an autoencoder" : "a classifier"));
  if (buckets_of(data) && (config.autoencoder || config.classifier))
    throw ConfigError(fmt::format("train.data has buckets, and {} learns from images of one shape",
                                  config.autoencoder ? "an autoencoder" : "a classifier"));
  if (loss_weights_of(data) && (config.autoencoder || config.classifier))
    throw ConfigError(fmt::format("train.data has masks or loss weights, and {} does not weigh its images",
                                  config.autoencoder ? "an autoencoder" : "a classifier"));
  if (config.train->preview.base && (config.autoencoder || config.classifier))
    throw ConfigError("train.preview.base: shows images of a diffusion model, and this is none");
  if (config.autoencoder) return make_autoencoder_learner(config, resolved, compute, set, origin);
  const bool classifier = config.classifier.has_value();
  const int64_t classes = classifier ? config.classifier->classes : config.model.conditioner->traits().classes;
  if (classes > 0 && int64_t(data.classes().size()) != classes)
    throw ConfigError(fmt::format("{} has {} and train.data has {}", classifier ? "classifier" : "model.conditioner",
                                  counted(classes, "class"), data.classes().size()));
  if (classes > 0 && class_names(config).empty()) set_class_names(config, resolved, data.classes());  // a checkpoint knows them by name
  return classifier ? make_classifier_learner(config, resolved, compute, origin)
                    : make_diffusion_learner(config, resolved, compute, data, origin);
}

Batch examples(const Config& config, const Dataset& data) {
  if (config.classifier || config.autoencoder) return {};
  const ImageShape shape = data.encoded() ? data.encoded()->shape : config.image();
  const int64_t wanted = config.train->preview.count, count = data.size() == 0 ? wanted : std::min(wanted, data.size());
  return read_batch(data, shape, count, [](int64_t i) { return Pick{i, 0}; });
}

}  // namespace brume
