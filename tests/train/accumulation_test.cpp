// A batch that is computed in parts trains as the whole batch does.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include "autoencoder_support.h"
#include "brume/config/yaml.h"
#include "brume/train/trainer.h"
#include "classifier_support.h"
#include "support/registry.h"
#include "support/small_trainings.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

const std::string diffusion = R"(
model:
  image: {channels: 1, height: 8, width: 8}
  network: {type: unet, channels: 16, multipliers: [1, 2], blocks: 1, attention_resolutions: [4], heads: 2, groups: 8, dropout: 0.2}
  conditioner: {type: class_label, classes: 5, dropout: 0.2}
  noise: cosine
train:
  data: {type: shapes}
  objective: {type: simple, time: low_discrepancy, noise: {offset: 0.1, perturbation: 0.1}}
  preview: {count: 0}
compute: {precision: fp32, threads: 1}
sample: {sampler: ddim, steps: 4}
)";

/// Returns the model's weights after 20 updates by gradient descent.
std::vector<Tensor> weights_after(const std::string& yaml, int64_t parts) {
  const TempFolder folder;
  Value root = parse_yaml(yaml, "x.yaml");
  for (const std::string& set : {std::string("train.batch=8"), std::string("train.steps=20"),
                                 std::string("train.optimizer={type: sgd, lr: 0.01}"), fmt::format("train.accumulate={}", parts)})
    apply_override(root, set);
  const ReadConfig read(root);
  Trainer trainer(read.config, read.resolved, folder.path() / "run");
  EXPECT_TRUE(trainer.run(nullptr));
  std::vector<Tensor> all;
  for (const Weight& w : trainer.weights()) all.push_back(w.tensor.detach().clone());
  return all;
}

void expect_whole(const std::string& yaml) {
  const std::vector<Tensor> whole = weights_after(yaml, 1);
  for (const int64_t parts : {2, 8}) {
    const std::vector<Tensor> in_parts = weights_after(yaml, parts);
    double largest = 0;
    for (size_t i = 0; i < whole.size(); ++i) largest = std::max(largest, (whole[i] - in_parts[i]).abs().max().item<double>());
    EXPECT_LT(largest, 1e-6) << parts << " parts";
  }
}

TEST(Accumulation, TrainsAModelAsTheWholeBatchDoes) { expect_whole(diffusion); }
TEST(Accumulation, TrainsAClassifierAsTheWholeBatchDoes) { expect_whole(small_classifier); }
TEST(Accumulation, TrainsAnAutoencoderAsTheWholeBatchDoes) { expect_whole(small_autoencoder); }

TEST(Accumulation, TrainsAgainstADiscriminatorAsTheWholeBatchDoes) {
  Value root = parse_yaml(small_autoencoder, "x.yaml");
  apply_override(root, "train.loss.adversarial={weight: 0.5, channels: 8, layers: 1}");
  apply_override(root, "train.seed=1");  // with 0 a value so near to the kink of a leaky ReLU that rounding decides its side
  expect_whole(dump_yaml(root));
}
TEST(Accumulation, LearnsFromTheLossesAsTheWholeBatchDoes) {
  Value root = parse_yaml(diffusion, "x.yaml");
  apply_override(root, "model.noise={type: linear, timesteps: 4}");
  apply_override(root, "train.objective={type: simple, time: {type: loss_second_moment, history: 2}}");
  expect_whole(dump_yaml(root));
}

TEST(Accumulation, RefusesPartsThatDoNotDivideABatch) {
  const auto mistake = [](const std::string& yaml, const std::vector<std::string>& sets) {
    return error_of([&] {
      const TempFolder folder;
      Value root = parse_yaml(yaml, "x.yaml");
      for (const std::string& set : sets) apply_override(root, set);
      const ReadConfig read(root);
      Trainer(read.config, read.resolved, folder.path() / "run");
    });
  };
  EXPECT_NE(mistake(diffusion, {"train.batch=8", "train.accumulate=3"}).find("must divide batch"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
