// Discrete diffusion end to end: a first stage with a codebook, a model of its codes by class, samples from the model's file alone.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/model.h"
#include "brume/train/trainer.h"
#include "support/tempdir.h"
#include "train/classifier_support.h"

namespace brume::test {
namespace {

const std::string vq =
    "autoencoder:\n  image: {channels: 1, height: 16, width: 16}\n"
    "  network: {type: vq, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, latent_channels: 4, codes: 12}\n"
    "train: {data: {type: shapes}, batch: 4, steps: 6, preview: {count: 0}}\ncompute: {threads: 1, precision: fp32}\n";

/// The end of a configuration: the objective and the sampler of a kernel.
struct Chain {
  std::string noise, kernel, objective, sampler;
};
const Chain masks{"flow", "absorbing", "mdlm", "mdlm"};
const Chain uniform{"{type: cosine, timesteps: 100}", "uniform", "d3pm", "{type: d3pm, kernel: uniform}"};

class TrainedCodes : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    Trainer::from_yaml(vq, {.directory = folder_->file("vq")})->run(nullptr);
    for (const Chain& chain : {masks, uniform}) train(chain, chain.kernel);
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }
  static void train(const Chain& chain, const std::string& name, int64_t accumulate = 1) {
    const std::string yaml = fmt::format(
        "model:\n  image: {{channels: 1, height: 16, width: 16}}\n"
        "  autoencoder: {{type: codes, first_stage: {{type: checkpoint, path: {}}}}}\n"
        "  network: {{type: dit, patch: 1, width: 16, depth: 1, heads: 2}}\n"
        "  conditioner: {{type: class_label, classes: 5, dropout: 0.2}}\n  noise: {}\n  parameterization: {{type: logits, kernel: {}}}\n"
        "train:\n  data: {{type: shapes, label: form}}\n  objective: {}\n  batch: 4\n  accumulate: {}\n  steps: 4\n"
        "  preview: {{count: 2, steps: 2}}\n  validation: {{data: {{type: shapes, label: form}}, images: 8, levels: 3}}\n  log_every: 1\n"
        "sample: {{sampler: {}, steps: 4}}\ncompute: {{threads: 1, precision: fp32}}\n",
        folder_->file("vq/model.safetensors"), chain.noise, chain.kernel, chain.objective, accumulate, chain.sampler);
    Trainer::from_yaml(yaml, {.directory = folder_->file(name)})->run(nullptr);
  }
  static Model open(const std::string& name) { return Model::open(folder_->file(name), {.precision = "fp32"}); }
  inline static TempFolder* folder_ = nullptr;
};

TEST_F(TrainedCodes, LossesAreThoseOfNoKnowledgeAtFirst) {
  for (const Chain& chain : {masks, uniform}) {
    const auto lines = metrics_of(folder_->path() / chain.kernel);
    bool validated = false;
    for (const auto& line : lines) {
      if (line.contains("loss")) {
        EXPECT_TRUE(std::isfinite(line["loss"].get<double>())) << chain.kernel;
      }
      if (line.contains("validation_loss")) {
        validated = true;
        EXPECT_GT(line["validation_loss"].get<double>(), 0.3) << chain.kernel;
        EXPECT_LT(line["validation_loss"].get<double>(), 5) << chain.kernel;  // log 12 = 2.5 for each masked code
      }
    }
    EXPECT_TRUE(validated) << chain.kernel;
  }
}

TEST_F(TrainedCodes, SamplesOfAClassDoNotDependOnTheBatch) {
  for (const Chain& chain : {masks, uniform}) {
    const Model model = open(chain.kernel);
    ImageRequest request{.classes = {"star", "#1"}, .count = 5, .seed = 7, .cfg = 3, .batch = 5};
    const Tensor together = model.sample(request);
    EXPECT_EQ(together.sizes(), at::IntArrayRef({5, 1, 16, 16}));
    EXPECT_TRUE(at::isfinite(together).all().item<bool>());
    request.batch = 2;
    EXPECT_TRUE(at::equal(model.sample(request), together)) << chain.kernel;
    request.seed = 8;
    EXPECT_FALSE(at::equal(model.sample(request), together)) << chain.kernel;
  }
}

TEST_F(TrainedCodes, PartsOfABatchAreTheBatch) {
  train(masks, "parts", 2);
  const auto whole = metrics_of(folder_->path() / "absorbing"), parts = metrics_of(folder_->path() / "parts");
  ASSERT_EQ(whole.size(), parts.size());
  for (size_t i = 0; i < whole.size(); ++i)
    if (whole[i].contains("loss")) {
      EXPECT_NEAR(whole[i]["loss"].get<double>(), parts[i]["loss"].get<double>(), 1e-4) << i;
    }
}

TEST_F(TrainedCodes, WhatTheMaskKeepsIsTheImage) {
  const Model model = open("absorbing");
  const Tensor image = at::zeros({1, 1, 16, 16}), mask = at::zeros({1, 1, 16, 16});
  const Tensor kept = model.sample({.count = 1, .image = image, .mask = mask}), again = model.decode(model.encode(image));
  EXPECT_LE((kept - again).abs().max().item<double>(), 1e-5);
}

}  // namespace
}  // namespace brume::test
