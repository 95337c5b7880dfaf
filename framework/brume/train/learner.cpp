#include "brume/train/learner.h"

#include <fmt/format.h>

namespace brume {

TrainedModule model_module(std::vector<Weight> weights, const TrainOptions& train) {
  return {.name = "", .weights = std::move(weights), .optimizer = train.optimizer, .ema = train.ema};
}

std::unique_ptr<Learner> make_learner(Config& config, Value& resolved, const Compute& compute, const std::shared_ptr<const Dataset>& set,
                                      const LearnerOrigin& origin) {
  const Dataset& data = *set;
  if (data.encoded() && (config.autoencoder || config.classifier))
    throw ConfigError(
        fmt::format("train.data holds latents, and {} learns from images", config.autoencoder ? "an autoencoder" : "a classifier"));
  if (config.autoencoder) return make_autoencoder_learner(config, resolved, compute, set, origin);
  const bool classifier = config.classifier.has_value();
  const int64_t classes = classifier ? config.classifier->classes : config.model.conditioner->traits().classes;
  std::vector<std::string>& names = classifier ? config.classifier->class_names : config.model.class_names;
  if (classes > 0 && int64_t(data.classes().size()) != classes)
    throw ConfigError(fmt::format("{} has {} classes and train.data has {}", classifier ? "classifier" : "model.conditioner", classes,
                                  data.classes().size()));
  if (classes > 0 && names.empty()) {  // the checkpoint knows its classes by name
    names = data.classes();
    Value list = Value::list();
    for (const std::string& name : names) list.items.push_back(Value::text(name, true));
    resolved.find(classifier ? "classifier" : "model")->set("class_names", std::move(list));
  }
  return classifier ? make_classifier_learner(config, resolved, compute, origin)
                    : make_diffusion_learner(config, resolved, compute, data, origin);
}

}  // namespace brume
