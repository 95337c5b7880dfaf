#include "support/model_file.h"

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <map>

#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/classifier_pipeline.h"
#include "brume/diffusion/pipeline.h"
#include "support/registry.h"

namespace brume::test {

std::string model_file(const TempFolder& folder, const std::string& yaml) {
  ModelSection root;
  const Value resolved = read_config(builtins(), parse_yaml("model: " + yaml, "test.yaml"), root);
  const Pipeline pipeline(root.model, Compute{}, 1);
  ModelCard card;
  card.model = *resolved.find("model");
  card.files = pipeline.files();
  save_model(folder.file("model.safetensors"), pipeline.weights(), card);
  return folder.file("model.safetensors");
}

std::string classifier_file(const TempFolder& folder, uint64_t seed) {
  struct Root {
    ClassifierOptions classifier;
    void declare(Fields& f) { f.section("classifier", classifier, "of a test"); }
  } root;
  const Value resolved = read_config(builtins(),
                                     parse_yaml("classifier: {image: {channels: 1, height: 16, width: 16}, classes: 5, network: {type: "
                                                "unet_encoder, channels: 16, multipliers: [1, 2], blocks: 1, groups: 4, heads: 2}}",
                                                "test.yaml"),
                                     root);
  ModelCard card;
  card.classifier = *resolved.find("classifier");
  save_model(folder.file("classifier.safetensors"), ClassifierPipeline(root.classifier, Compute{}, seed).weights(), card);
  return folder.file("classifier.safetensors");
}

void expect_same(const Contents& got, const Contents& wanted, bool configuration) {
  std::map<std::string, at::Tensor> by_name;
  for (const NamedTensor& t : got.tensors) by_name.emplace(t.name, t.tensor);
  EXPECT_EQ(by_name.size(), wanted.tensors.size());
  for (const NamedTensor& t : wanted.tensors) {
    const auto at = by_name.find(t.name);
    ASSERT_NE(at, by_name.end()) << t.name;
    ASSERT_EQ(at->second.sizes(), t.tensor.sizes()) << t.name;
    EXPECT_TRUE(at->second.equal(t.tensor)) << t.name;
  }
  if (configuration) {
    EXPECT_EQ(*got.metadata.text("model"), *wanted.metadata.text("model"));
  }
}

}  // namespace brume::test
