// Classifiers: they learn, they resume bit for bit, what they say of an image is its own affair, and mistakes are named.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "brume/core/classifier.h"
#include "brume/nn/blocks/pooling.h"
#include "brume/weights/weights_file.h"
#include "classifier_support.h"

namespace brume::test {
namespace {

Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions().dtype(at::kFloat));
}

std::string mistake(const std::string& yaml) {
  return error_of([&] { ReadConfig{yaml}; });
}

const std::vector<std::string> encoders = {
    "{type: unet_encoder, channels: 16, multipliers: [1, 2], groups: 4, heads: 2, attention_resolutions: [8]}",
    "{type: unet_encoder, channels: 16, multipliers: [1, 2], groups: 4, pooling: adaptive, zero_init: false, resampling: pool}",
    "{type: unet_encoder, channels: 16, multipliers: [0.5, 2, 1], groups: 4, head_channels: 8, resampling: residual, scale_shift: false, "
    "noise_embedding: fourier, attention_order: new}",
    "{type: unet_encoder, channels: 16, multipliers: [1, 2], groups: 4, heads: 2, pooling: spatial}",
    "{type: unet_encoder, channels: 16, multipliers: [1, 2], groups: 4, heads: 2, pooling: spatial_v2, resampling: residual}"};

std::shared_ptr<Classifier> encoder(const std::string& yaml, uint64_t seed = 1) {
  const auto c = make<Classifier>(yaml, {.input = {3, 16, 24}, .classes = 7, .seed = seed});
  for (const Weight& w : c->weights())  // zero-initialised blocks would hide what is in them
    if (w.trainable && w.tensor.dim() > 1) Tensor(w.tensor).add_(normal(w.tensor.sizes(), seed + 5) * 0.05);
  return c;
}

TEST(UnetEncoder, GivesFeaturesAndLogits) {
  const at::NoGradGuard no_grad;
  for (const std::string& yaml : encoders)
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const auto y = encoder(yaml)->forward(normal({4, 3, 16, 24}, 2).to(dtype), at::ones({4}), nullptr);
      EXPECT_EQ(y.logits.sizes(), at::IntArrayRef({4, 7})) << yaml;
      const int64_t width = yaml.find("spatial") != yaml.npos ? 2048 : yaml.find("0.5") == yaml.npos ? 32 : 16;
      EXPECT_EQ(y.features.sizes(), at::IntArrayRef({4, width})) << yaml;
      EXPECT_EQ(y.logits.scalar_type(), dtype);
      EXPECT_GT(y.logits.to(at::kFloat).std().item<double>(), 0.01) << yaml;
    }
}

TEST(UnetEncoder, AnImageIsJudgedTheSameInAnyBatch) {
  const at::NoGradGuard no_grad;
  const Tensor x = normal({16, 3, 16, 24}, 3),
               t = at::rand({16}, at::detail::createCPUGenerator(4), at::TensorOptions().dtype(at::kFloat)) * 900;
  for (const std::string& yaml : encoders)
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const auto c = encoder(yaml);
      const auto all = c->forward(x.to(dtype), t, nullptr);
      for (const int64_t batch : {1, 2, 3, 5})
        for (int64_t first = 0; first + batch <= 16; first += batch) {
          const auto some = c->forward(x.to(dtype).narrow(0, first, batch), t.narrow(0, first, batch), nullptr);
          EXPECT_TRUE(some.logits.equal(all.logits.narrow(0, first, batch))) << yaml << " batch " << batch;
          EXPECT_TRUE(some.features.equal(all.features.narrow(0, first, batch))) << yaml << " batch " << batch;
        }
    }
}

TEST(UnetEncoder, IsNamedAsInGuidedDiffusion) {
  std::vector<std::string> names;
  for (const Weight& w : encoder(encoders[0])->weights()) names.push_back(w.name);
  for (const char* name :
       {"time_embed.0.weight", "input_blocks.0.0.weight", "input_blocks.1.0.in_layers.0.weight", "input_blocks.3.0.op.weight",
        "input_blocks.4.1.qkv.weight", "middle_block.1.proj_out.bias", "middle_block.2.out_layers.3.weight", "out.0.weight",
        "out.2.positional_embedding", "out.2.qkv_proj.weight", "out.2.c_proj.bias"})
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
  const auto shape = [](const std::string& yaml, const std::string& name) {
    for (const Weight& w : encoder(yaml)->weights())
      if (w.name == name) return w.tensor.sizes().vec();
    return std::vector<int64_t>{};
  };
  EXPECT_EQ(shape(encoders[0], "out.2.positional_embedding"), (std::vector<int64_t>{32, 8 * 12 + 1}));
  EXPECT_EQ(shape(encoders[0], "out.2.qkv_proj.weight"), (std::vector<int64_t>{96, 32, 1}));
  EXPECT_EQ(shape(encoders[0], "out.2.c_proj.weight"), (std::vector<int64_t>{7, 32, 1}));
  EXPECT_EQ(shape(encoders[1], "out.3.weight"), (std::vector<int64_t>{7, 32, 1, 1}));
  // Spatial pooling sees every map of the encoder, here 16 (the first convolution), 16, 16, 16 (halved), 32, 32, and 32 of the middle.
  EXPECT_EQ(shape(encoders[3], "out.0.weight"), (std::vector<int64_t>{2048, 160}));
  EXPECT_EQ(shape(encoders[3], "out.2.weight"), (std::vector<int64_t>{7, 2048}));
  EXPECT_EQ(shape(encoders[4], "out.1.bias"), (std::vector<int64_t>{2048}));
  EXPECT_EQ(shape(encoders[4], "out.3.weight"), (std::vector<int64_t>{7, 2048}));
}

// Attention pooling as CLIP writes it: every token asks, and the first one's answer is taken.
TEST(UnetEncoder, PoolsAsClipDoes) {
  const at::NoGradGuard no_grad;
  const nn::Builder build(9);
  const nn::AttentionPool pool(build, 8, 6, 2);
  const Tensor x = normal({2, 8, 2, 3}, 10);
  const Tensor places = build.weights()[0].tensor, w = build.weights()[1].tensor.squeeze(-1), b = build.weights()[2].tensor;
  const Tensor flat = x.flatten(2), tokens = at::cat({flat.mean(2, true), flat}, 2) + places;
  const Tensor qkv = w.matmul(tokens) + b.unsqueeze(-1);
  std::vector<Tensor> heads;
  for (int64_t h = 0; h < 2; ++h) {
    const auto part = [&](int64_t k) { return qkv.narrow(1, 8 * k + 4 * h, 4); };
    const Tensor weights = (part(0).transpose(1, 2).matmul(part(1)) / 2.0).softmax(-1);
    heads.push_back(part(2).matmul(weights.transpose(1, 2)).select(2, 0));
  }
  EXPECT_TRUE(pool(x).allclose(at::cat(heads, 1), 1e-5, 1e-6));
}

TEST(Classifier, LearnsTheFormsOfShapes) {
  const TempFolder folder;
  train_into(tiny_classifier(120), folder.path() / "run");
  const std::vector<nlohmann::json> lines = metrics_of(folder.path() / "run");
  ASSERT_EQ(lines.size(), 12u);
  EXPECT_LT(lines[0]["accuracy"].get<double>(), 0.5);
  EXPECT_GT(lines[11]["accuracy"].get<double>(), 0.6) << "chance is 0.2";
  EXPECT_LT(lines[11]["loss"].get<double>(), 0.7 * lines[0]["loss"].get<double>());
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "run/samples"));
}

TEST(Classifier, KnowsNoisyImages) {
  const TempFolder folder;
  train_into(tiny_classifier(3, "  noise: {schedule: cosine}\n", "  label_smoothing: 0.1\n"), folder.path() / "run");
  const auto c = trained(folder.path() / "run");
  const Tensor x = normal({3, 1, 16, 16}, 11);
  const Tensor logits = c->classify(x, {0.0, 0.5, 30.0}).logits;
  EXPECT_TRUE(logits.isfinite().all().item<bool>());
  EXPECT_TRUE(c->classify(x.narrow(0, 0, 1)).logits.allclose(c->classify(x.narrow(0, 0, 1), {0.0}).logits));
  Tensor leaf = x.clone().set_requires_grad(true);  // what classifier guidance asks for
  c->classify(leaf, {0.5, 0.5, 0.5}).logits.log_softmax(1).select(1, 2).sum().backward();
  EXPECT_GT(leaf.grad().abs().sum().item<double>(), 0);
}

TEST(Classifier, OfCleanImagesIsNotAskedAboutNoise) {
  const ReadConfig read(tiny_classifier(1));
  const ClassifierPipeline c(*read.config.classifier, Compute{});
  EXPECT_EQ(error_of([&] {
              c.classify(at::zeros({1, 1, 16, 16}), {0.5});
            }),
            "this classifier was trained on clean images, and is asked about noise (sigma = 0.5)");
  EXPECT_EQ(error_of([&] { c.labels({{4, ""}, {5, ""}}); }), "class 5 is out of range: this classifier has 5 classes, 0 to 4");
  EXPECT_EQ(error_of([&] { c.labels({{-1, ""}}); }), "an image has no class, and a classifier needs one");
}

TEST(Classifier, ResumesBitForBit) {
  const TempFolder folder;
  const std::string yaml = tiny_classifier(14, "  noise: {schedule: cosine}\n");
  train_into(yaml, folder.path() / "whole");
  train_into(yaml, folder.path() / "parts", 6);
  const std::filesystem::path file = folder.path() / "parts/training.safetensors";
  const ReadConfig read(training_configuration(file));
  Trainer rest(read.config, read.resolved, folder.path() / "parts", file);
  EXPECT_EQ(rest.step(), 6);
  EXPECT_TRUE(rest.run(nullptr));
  for (const char* name : {"model.safetensors", "training.safetensors"}) {
    const NamedTensors a = load_tensors((folder.path() / "whole" / name).string());
    const NamedTensors b = load_tensors((folder.path() / "parts" / name).string());
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].name == b[i].name && a[i].tensor.equal(b[i].tensor)) << name << " " << a[i].name;
  }
}

TEST(Classifier, ItsFileSaysWhatItIs) {
  const TempFolder folder;
  train_into(tiny_classifier(1), folder.path() / "run");
  const std::string file = (folder.path() / "run/model.safetensors").string();
  EXPECT_EQ(kind_of(file), "classifier");
  EXPECT_EQ(without(error_of([&] { read_card(file); }), folder),
            "run/model.safetensors: is a classifier, not a diffusion model; `brume evaluate` is for it");
  const ModelCard card = read_classifier_card(file);
  EXPECT_EQ(card.step, 1);
  ASSERT_NE(card.classifier.find("class_names"), nullptr);
  EXPECT_EQ(card.classifier.find("class_names")->items.size(), 5u);
  const std::string model = folder.file("m.safetensors");
  ModelCard diffusion;
  diffusion.model = parse_yaml("network: unet", "x");
  save_model(model, {}, diffusion);
  EXPECT_EQ(without(error_of([&] { read_classifier_card(model); }), folder), "m.safetensors: is a diffusion model, not a classifier");
  EXPECT_EQ(kind_of(model), "model");
}

TEST(ClassifierConfiguration, Mistakes) {
  EXPECT_EQ(mistake("sample: {steps: 3}"),
            "x.yaml:1:1: model: missing; a configuration has a 'model' (of diffusion), a 'classifier' or an 'autoencoder'");
  EXPECT_EQ(mistake("model: {network: unet}\nclassifier: {network: unet_encoder}"),
            "x.yaml:2:13: classifier: does not stand alone; a configuration has one of 'model', 'classifier' and 'autoencoder'");
  EXPECT_EQ(mistake("classifier: {classes: 3}"), "x.yaml:1:13: classifier: missing 'network' (a classifier: unet_encoder)");
  EXPECT_EQ(mistake("classifier: {network: unet}"), "x.yaml:1:23: classifier.network: unknown classifier 'unet'; known: unet_encoder");
  EXPECT_EQ(mistake("classifier: {network: unet_encoder, classes: 1}"), "x.yaml:1:46: classifier: classes = 1 is outside [2, 1000000]");
  EXPECT_EQ(mistake("classifier: {network: unet_encoder, classes: 3, class_names: [a, b]}"),
            "x.yaml:1:62: classifier: class_names: 2 names for 3 classes");
  EXPECT_EQ(mistake("classifier: {network: {type: unet_encoder, attention_resolutions: [7]}}"),
            "x.yaml:1:23: classifier.network: attention_resolutions: no level has height 7; the levels have 32, 16, 8");
  EXPECT_EQ(mistake("classifier: {network: {type: unet_encoder, heads: 3, middle_attention: false}}"),
            "x.yaml:1:23: classifier.network: pooling: 128 channels cannot be split into equal heads");
  const std::string first = "classifier: {network: unet_encoder}\n";
  EXPECT_EQ(mistake(first + "sample: {steps: 3}"),
            "x.yaml:2:1: unknown key 'sample'; known: model, classifier, autoencoder, train, compute, plugins");
  EXPECT_TRUE(
      mistake(first + "train: {data: shapes, objective: simple}").starts_with("x.yaml:2:23: train: unknown key 'objective'; known: "));
  EXPECT_TRUE(mistake("model: {network: unet}\ntrain: {data: shapes, label_smoothing: 0}")
                  .starts_with("x.yaml:2:23: train: unknown key 'label_sm"));
}

TEST(ClassifierConfiguration, ClassesMustAgree) {
  const TempFolder folder;
  EXPECT_EQ(error_of([&] {
              std::string yaml = tiny_classifier(1);
              yaml.replace(yaml.find("classes: 5"), 10, "classes: 6");
              train_into(yaml, folder.path() / "run");
            }),
            "classifier has 6 classes and train.data has 5");
  EXPECT_EQ(error_of([&] { train_into(tiny_classifier(1, "", "  test: {data: shapes}\n"), folder.path() / "run"); }),
            "train.test.data is endless; a test needs a set that ends");
}

}  // namespace
}  // namespace brume::test
