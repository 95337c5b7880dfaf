#include "commands/open_classifier.h"

#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/configuration.h"
#include "brume/interop/import/import.h"

namespace brume::tools {

std::unique_ptr<ClassifierPipeline> open_classifier(Program& program, const std::string& path, const Overrides& overrides) {
  const ModelCard card = read_classifier_card(path);
  Value root = Value::map();
  root.set("classifier", card.classifier);
  Overrides where = overrides;
  where.set.clear();
  if (where.precision.empty()) where.precision = "fp32";  // a measure must not depend on the processor
  where.apply(root);
  ModelConfig config;
  read_stored(program.registry, path, card.plugins, [&] { config = read_model_configuration(program.registry, root); });
  auto classifier = std::make_unique<ClassifierPipeline>(*config.classifier, resolve_compute(config.compute));
  load_model(path, classifier->weights());
  classifier->freeze();
  return classifier;
}

}  // namespace brume::tools
