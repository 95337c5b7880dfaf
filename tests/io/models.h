#pragma once
// What tests of imports and exports share: small models in files as `brume train` writes them, and whether what is imported can be built.
#include <gtest/gtest.h>

#include <map>

#include "diffusion/checkpoint.h"
#include "diffusion/classifier_pipeline.h"
#include "diffusion/pipeline.h"
#include "io/import/import.h"
#include "io/weights.h"
#include "nn/layers.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "train/options.h"

namespace brume::test {

struct Root {
  ModelOptions model;
  void declare(Fields& f) { f.section("model", model, "what is exported"); }
};

/// A model with the weights it begins with, in a file as `brume train` writes it.
inline std::string model_file(const TempFolder& folder, const std::string& yaml) {
  Root root;
  const Value resolved = read_config(builtins(), parse_yaml("model: " + yaml, "test.yaml"), root);
  const Pipeline pipeline(root.model, Compute{}, 1);
  ModelCard card;
  card.model = *resolved.find("model");
  card.files = pipeline.files();
  save_model(folder.file("model.safetensors"), pipeline.weights(), card);
  return folder.file("model.safetensors");
}

inline void expect_same(const io::Contents& got, const io::Contents& wanted, bool configuration) {
  std::map<std::string, at::Tensor> by_name;
  for (const io::NamedTensor& t : got.tensors) by_name.emplace(t.name, t.tensor);
  EXPECT_EQ(by_name.size(), wanted.tensors.size());
  for (const io::NamedTensor& t : wanted.tensors) {
    const auto at = by_name.find(t.name);
    ASSERT_NE(at, by_name.end()) << t.name;
    ASSERT_EQ(at->second.sizes(), t.tensor.sizes()) << t.name;
    EXPECT_TRUE(at->second.equal(t.tensor)) << t.name;
  }
  if (configuration) {
    EXPECT_EQ(got.metadata.at("brume.model"), wanted.metadata.at("brume.model"));
  }
}

/// Throws where the model cannot be built, or a tensor has no place in it.
inline void fit(const io::Imported& model) {
  Value root = Value::map();
  root.set(model.section, model.options);
  if (!model.sample.is_null()) root.set("sample", model.sample);
  Registry registry = builtins();
  const Config config = read_stored_configuration(registry, root, "model.safetensors", {});
  const nn::WeightsFollow follow;
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
