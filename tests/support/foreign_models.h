#pragma once
// What tests of imports share: whether what is imported can be built.
#include <gtest/gtest.h>

#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/classifier_pipeline.h"
#include "brume/diffusion/pipeline.h"
#include "brume/interop/import/import.h"
#include "brume/nn/blocks/layers.h"
#include "brume/train/options.h"
#include "brume/weights/model_weights.h"
#include "support/model_file.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {

/// Throws if the model cannot be built, or a tensor has no place in it.
inline void fit(const Imported& model) {
  Value root = Value::map();
  root.set(model.section, model.options);
  if (!model.sample.is_null()) root.set("sample", model.sample);
  Registry registry = builtins();
  const Config config = read_stored_configuration(registry, root, "model.safetensors", {});
  const nn::SkipInit follow;
  std::vector<Weight> weights;
  if (config.classifier)
    weights = ClassifierPipeline(*config.classifier, {}).weights();
  else if (config.autoencoder)
    for (const Weight& w : config.autoencoder->network.make({config.autoencoder->image, 0, &model.files, &no_models()})->weights())
      weights.push_back({"autoencoder." + w.name, w.tensor, w.trainable});
  else
    weights = Pipeline(config.model, {}, 0, &model.files).weights();
  fitting("model.safetensors", model.tensors, weights);
}

/// Shapes that no tensor of a network has, in turn.
inline std::vector<int64_t> damaged_shape(size_t turn) {
  const std::vector<int64_t> shapes[] = {{}, {0}, {7}, {0, 0, 0, 0}};
  return shapes[turn % 4];
}

}  // namespace brume::test
