// Representation alignment (REPA): what it adds to the loss, what it leaves as it is, what it refuses.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cosine_similarity.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>

#include "brume/diffusion/model_files.h"
#include "brume/train/alignment.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/model_file.h"
#include "support/vision.h"
#include "train/classifier_support.h"

namespace brume::test {
namespace {

const std::string dit = "{type: dit, width: 16, depth: 3, heads: 2, patch: 4}";
const std::string unet = "{type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, attention_resolutions: []}";

/// `align`: the section, or nothing.
std::string training(const std::string& align, const std::string& network = dit, const std::string& train = "") {
  return fmt::format(
      "model:\n  image: {{channels: 1, height: 16, width: 16}}\n  network: {}\n"
      "  conditioner: {{type: class_label, classes: 5, dropout: 0.2}}\n  parameterization: v\n"
      "train:\n  data: shapes\n  optimizer: {{type: adamw, lr: 0.002, clip: 1}}\n  batch: 4\n  steps: 6\n  preview: {{count: 0}}\n"
      "  log_every: 1\n{}{}compute: {{precision: fp32, threads: 1}}\n",
      network, align.empty() ? "" : "  align: " + align + "\n", train);
}

class Aligned : public testing::Test {
 protected:
  void SetUp() override { classifier_file(folder_, 1); }
  std::string of_classifier(const std::string& more) const {
    return fmt::format("{{features: {{type: classifier, path: {}}}, width: 32{}}}", folder_.file("classifier.safetensors"), more);
  }
  void train(const std::string& yaml, const std::string& name, int64_t stop_at = -1, const std::string& resume = "") const {
    const ReadConfig read(yaml);
    const ModelFiles files(read.registry, resolve_compute(read.config.compute), "");
    Trainer trainer(read.config, read.resolved, folder_.file(name), resume.empty() ? "" : folder_.file(resume), files);
    trainer.run([&] { return trainer.step() == stop_at; });
  }
  NamedTensors tensors(const std::string& name) const { return load_tensors(folder_.file(name)); }
  std::string mistake(const std::string& yaml) const {
    return error_of([&] { train(yaml, "mistake"); });
  }
  TempFolder folder_;
};

void expect_equal(const NamedTensors& a, const NamedTensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].name == b[i].name && a[i].tensor.equal(b[i].tensor)) << a[i].name;
}

TEST(Alignment, TheMeanCosineIsThatOfEachPlace) {
  at::Generator random = at::detail::createCPUGenerator(1);
  const Tensor a = at::randn({3, 7, 2, 5}, random, at::TensorOptions()), b = at::randn({3, 7, 2, 5}, random, at::TensorOptions());
  EXPECT_NEAR(mean_cosine(a, b).item<double>(), at::cosine_similarity(a, b, 1).mean().item<double>(), 1e-6);
  EXPECT_NEAR(mean_cosine(a, a * 3).item<double>(), 1, 1e-6);
  EXPECT_NEAR(mean_cosine(a, a * -2).item<double>(), -1, 1e-6);
}

TEST_F(Aligned, AWeightOfZeroLeavesTheBitsOfTheModel) {
  for (const std::string& network : {dit, unet}) {
    const std::string name = network == dit ? "dit" : "unet";
    train(training("", network), name + "_without");
    train(training(of_classifier(", weight: 0"), network), name + "_zero");
    train(training(of_classifier(""), network), name + "_half");
    const NamedTensors without = tensors(name + "_without/model.safetensors"), half = tensors(name + "_half/model.safetensors");
    expect_equal(without, tensors(name + "_zero/model.safetensors"));  // the projection is no part of the file
    bool other = false;
    for (const NamedTensor& t : half) other = other || !t.tensor.equal(*find(without, t.name));
    EXPECT_TRUE(other);
    EXPECT_TRUE(metrics_of(folder_.file(name + "_zero")).front().contains("alignment"));
  }
}

// The loss of the objective minus the weight times the cosine, by the formula, of patches and of whole images.
TEST_F(Aligned, SubtractsTheMeanCosineOfProjectedTokensAndFeatures) {
  write_safetensors(folder_.file("dinov2.safetensors"), dinov2_tensors(4, false));
  for (const bool patches : {true, false}) {
    const std::string options = patches ? fmt::format("{{features: {{type: dinov2, path: {}, size: 56}}, block: blocks.1, width: 32}}",
                                                      folder_.file("dinov2.safetensors"))
                                        : of_classifier(", block: blocks.1");
    const ReadConfig read(training(options));
    const ModelFiles files(read.registry, Compute{}, "");
    const Pipeline model(read.config.model, Compute{}, 3);
    Alignment alignment(*read.config.train->align, model, files, 5);
    at::Generator drawn = at::detail::createCPUGenerator(8);
    const Tensor images = at::randn({2, 1, 16, 16}, drawn, at::TensorOptions()).clamp(-1, 1);
    const std::vector<Annotation> annotations{{.label = 1}, {.label = 4}};
    for (Weight& w : model.weights()) w.tensor.set_requires_grad(true);
    Tensor hidden;
    const auto loss = [&](const Taps& taps) {
      brume::Training training;
      at::Generator random = at::detail::createCPUGenerator(2);
      return model.loss(*read.config.train->objective, {images, annotations}, training, random, taps);
    };
    Taps own;
    own.blocks["blocks.1"] = [&](const Tensor&, const std::function<Tensor()>& compute) { return hidden = compute(); };
    const Tensor plain = loss({}), tapped = loss(alignment.taps());
    EXPECT_TRUE(plain.equal(tapped));
    loss(own);
    const std::vector<Weight> w = alignment.weights();
    ASSERT_EQ(w.size(), 6u);
    Tensor h = patches ? hidden : hidden.mean(1, true);  // [2, 16, 16]: 4x4 patches, as many as the features have
    h = at::linear(at::silu(at::linear(h, w[0].tensor, w[1].tensor)), w[2].tensor, w[3].tensor);
    h = at::linear(at::silu(h), w[4].tensor, w[5].tensor);
    const auto features =
        read.config.train->align->features.make({[&](const std::string& path) { return files.classifier_features(path); }});
    const Tensor y = patches ? features->patches(images.expand({-1, 3, -1, -1}).contiguous()).flatten(2).transpose(1, 2)
                             : features->extract(images).features.unsqueeze(1);
    ASSERT_EQ(h.sizes(), y.sizes());
    const Tensor cosine = alignment.cosine(images);
    EXPECT_NEAR(cosine.item<double>(), at::cosine_similarity(h, y, 2).mean().item<double>(), 1e-6);
    EXPECT_NEAR(alignment.figure(), cosine.item<double>(), 1e-7);
    EXPECT_GT(std::abs(cosine.item<double>()), 1e-4);
    EXPECT_TRUE(cosine.requires_grad());
    EXPECT_FALSE(alignment.cosine(images).defined()) << "no call since";
  }
}

TEST_F(Aligned, IsLearned) {
  std::string yaml = training(of_classifier(", weight: 1"));
  yaml.replace(yaml.find("steps: 6\n"), 8, "steps: 60");
  train(yaml, "run");
  const auto lines = metrics_of(folder_.file("run"));
  EXPECT_GT(lines.back().at("alignment").get<double>(), lines.front().at("alignment").get<double>() + 0.3);
  EXPECT_LE(lines.back().at("alignment").get<double>(), 1);
}

TEST_F(Aligned, ResumesBitForBit) {
  const std::string yaml = training(of_classifier(""));
  train(yaml, "whole");
  train(yaml, "halves", 3);
  train(yaml, "halves", -1, "halves/training.safetensors");
  for (const char* file : {"/model.safetensors", "/training.safetensors"})
    expect_equal(tensors(std::string("whole") + file), tensors(std::string("halves") + file));
  EXPECT_NE(find(tensors("whole/training.safetensors"), "helpers.align.projection.0.weight"), nullptr);
}

TEST_F(Aligned, APartOfABatchAddsItsShare) {
  const auto weights = [&](const std::string& parts) {
    std::string yaml = training(of_classifier(""), dit, parts);
    yaml.replace(yaml.find("{type: adamw, lr: 0.002, clip: 1}"), 33, "{type: sgd, lr: 0.01}");
    const std::string run = parts.empty() ? "whole" : "halves";
    train(yaml, run);
    return tensors(run + "/model.safetensors");
  };
  const NamedTensors whole = weights(""), halves = weights("  accumulate: 2\n");
  for (size_t i = 0; i < whole.size(); ++i)
    EXPECT_LT((whole[i].tensor - halves[i].tensor).abs().max().item<double>(), 1e-6) << whole[i].name;
}

TEST_F(Aligned, MistakesAreNamed) {
  EXPECT_NE(mistake(training(of_classifier(", block: block.1"))).find("the network has no block 'block.1'; did you mean 'blocks.1'?"),
            std::string::npos);
  EXPECT_NE(mistake(training(of_classifier(""), "{type: mlp, width: 8}")).find("train.align: the network names no blocks"),
            std::string::npos);
  EXPECT_NE(mistake(training("{features: {type: classifier}}")).find("path: the checkpoint of a classifier is missing"), std::string::npos);
  EXPECT_NE(mistake(training("{block: blocks.1}")).find("features"), std::string::npos);
  std::string smaller = training(of_classifier(""));
  smaller.replace(smaller.find("height: 16, width: 16"), 21, "height: 8, width: 8");
  EXPECT_NE(mistake(smaller).find("takes 1x16x16 images, not 1x8x8"), std::string::npos);
}

// Without attention, a change of one patch of the image changes the features of that patch alone.
TEST_F(Aligned, PatchesStandWhereTheyAreInTheImage) {
  NamedTensors weights = dinov2_tensors(4, false);
  for (NamedTensor& t : weights)
    if (t.name.ends_with("ls1.gamma")) t.tensor.zero_();
  write_safetensors(folder_.file("alone.safetensors"), weights);
  const auto features = make<Features>(fmt::format("{{type: dinov2, path: {}, size: 70}}", folder_.file("alone.safetensors")), {});
  const Tensor image = vision_image(0, 70, 70);
  Tensor changed = image.clone();
  changed.narrow(2, 14 * 1, 14).narrow(3, 14 * 3, 14).mul_(-1);
  const Tensor a = features->patches(image), b = features->patches(changed);
  ASSERT_EQ(a.sizes(), at::IntArrayRef({1, features->patch_width(), 5, 5}));
  for (int64_t row = 0; row < 5; ++row)
    for (int64_t column = 0; column < 5; ++column)
      EXPECT_EQ(a.select(2, row).select(2, column).equal(b.select(2, row).select(2, column)), row != 1 || column != 3) << row << column;
}

}  // namespace
}  // namespace brume::test
