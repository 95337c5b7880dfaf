// First stages as a whole: trained, resumed, stored, and under a diffusion model.
#include <ATen/TensorOperators.h>
#include <ATen/ops/rand.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "brume/config/yaml.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/interop/import/import.h"
#include "brume/train/reconstruction.h"
#include "brume/train/resuming.h"
#include "brume/weights/weights_file.h"
#include "train/autoencoder_support.h"

namespace brume::test {
namespace fs = std::filesystem;
namespace {

constexpr const char* adversarial = "  loss: {pixel: l1, adversarial: {start: 10, weight: 0.5, channels: 8, layers: 2}}\n";

bool same_tensors(const std::string& a, const std::string& b) {
  const NamedTensors x = load_tensors(a), y = load_tensors(b);
  if (x.size() != y.size()) return false;
  for (size_t i = 0; i < x.size(); ++i)
    if (x[i].name != y[i].name || !x[i].tensor.equal(y[i].tensor)) return false;
  return true;
}

double scale_in(const std::string& file) {
  return std::stod(read_autoencoder_card(file).autoencoder.find("network")->find("scale")->scalar);
}

TEST(AutoencoderTraining, ResumesBitForBit) {
  const TempFolder folder;
  const std::string yaml = tiny_autoencoder(24, ", dropout: 0.1", adversarial), whole = folder.file("whole"),
                    halves = folder.file("halves");
  train_into(yaml, whole);
  train_into(yaml, halves, 14);
  const ReadConfig read(training_configuration(halves + "/training.safetensors"));
  Trainer second(read.config, read.resolved, halves, halves + "/training.safetensors");
  EXPECT_EQ(second.step(), 14);
  EXPECT_TRUE(second.run(nullptr));
  EXPECT_TRUE(same_tensors(whole + "/model.safetensors", halves + "/model.safetensors"));
  EXPECT_TRUE(same_tensors(whole + "/training.safetensors", halves + "/training.safetensors"));
  EXPECT_EQ(scale_in(whole + "/model.safetensors"), scale_in(halves + "/model.safetensors"));
}

constexpr const char* own_optimizer = "  discriminator: {optimizer: {type: adam, lr: 0.002, beta1: 0.5}, every: 3}\n";

TEST(AutoencoderTraining, ADiscriminatorWithItsOwnOptimizerResumesBitForBit) {
  const TempFolder folder;
  const std::string yaml = tiny_autoencoder(20, "", std::string(adversarial) + own_optimizer), whole = folder.file("whole"),
                    halves = folder.file("halves");
  train_into(yaml, whole);
  train_into(yaml, halves, 14);
  const ReadConfig read(yaml);
  Trainer(read.config, read.resolved, halves, halves + "/training.safetensors").run(nullptr);
  for (const char* file : {"/model.safetensors", "/training.safetensors"}) EXPECT_TRUE(same_tensors(whole + file, halves + file)) << file;
  const NamedTensors state = load_tensors(whole + "/training.safetensors");
  for (const char* name : {"optimizers.discriminator.m.helpers.discriminator.0.weight", "optimizer.m.autoencoder.decoder.conv_in.weight"}) {
    ASSERT_TRUE(find(state, name)) << name;
    EXPECT_GT(find(state, name)->abs().max().item<double>(), 0) << name;
  }
  EXPECT_FALSE(find(state, "optimizer.m.helpers.discriminator.0.weight"));
  EXPECT_GT(double(metrics_of(whole).at(3)["discriminator.grad_norm"]), 0);
}

TEST(AutoencoderTraining, ADiscriminatorWithItsOwnOptimizerMovesWhenItIsDue) {
  const TempFolder folder;
  const std::string yaml = tiny_autoencoder(20, "", std::string(adversarial) + own_optimizer);
  const auto weight_after = [&](int64_t steps) {
    const std::string run = folder.file(fmt::format("after{}", steps));
    train_into(yaml, run, steps);
    return find(load_tensors(run + "/training.safetensors"), "helpers.discriminator.0.weight")->clone();
  };
  const Tensor before = weight_after(10), first = weight_after(11), waits = weight_after(13), second = weight_after(14);
  EXPECT_FALSE(first.equal(before));
  EXPECT_TRUE(waits.equal(first));
  EXPECT_FALSE(second.equal(waits));
}

TEST(AutoencoderTraining, TheDiscriminatorsOptimizerNeedsADiscriminator) {
  EXPECT_EQ(error_of([] { ReadConfig(tiny_autoencoder(1, "", own_optimizer)); }),
            "x.yaml:13:18: train: discriminator: needs loss.adversarial, which makes a discriminator");
}

TEST(AutoencoderTraining, ATrainingKeepsItsOptimizersWhenItIsResumed) {
  const ReadConfig shared(tiny_autoencoder(1, "", adversarial)), apart(tiny_autoencoder(1, "", std::string(adversarial) + own_optimizer));
  EXPECT_EQ(error_of([&] { changes_since(builtins(), shared.resolved, apart.resolved, apart.resolved); }),
            "the weights of a training's optimizers cannot be changed: train.discriminator is nothing and would be a map");
}

TEST(AutoencoderTraining, TheDiscriminatorIsKeptForResumingAndNowhereElse) {
  const TempFolder folder;
  train_into(tiny_autoencoder(2, "", adversarial), folder.file("run"));
  const auto count = [&](const std::string& file, const std::string& prefix) {
    int64_t n = 0;
    for (const NamedTensor& t : load_tensors(folder.file(file))) n += t.name.starts_with(prefix);
    return n;
  };
  EXPECT_GT(count("run/training.safetensors", "helpers.discriminator."), 0);
  EXPECT_EQ(count("run/training.safetensors", "ema.discriminator"), 0);
  EXPECT_EQ(count("run/model.safetensors", "autoencoder."), int64_t(load_tensors(folder.file("run/model.safetensors")).size()));
}

TEST(AutoencoderTraining, LearnsAndWritesWhatItMeasures) {
  const TempFolder folder;
  train_into(tiny_autoencoder(200), folder.file("run"));
  const std::vector<nlohmann::json> lines = metrics_of(folder.file("run"));
  std::vector<double> errors;
  for (const auto& line : lines)
    if (line.contains("reconstruction")) errors.push_back(line["reconstruction"]);
  ASSERT_GE(errors.size(), 20u);
  EXPECT_LT(errors.back(), 0.5 * errors.front());
  const nlohmann::json& last = lines.back();
  EXPECT_GT(double(last["train_psnr"]), 15);
  EXPECT_GT(double(last["train_ssim"]), 0.4);
  EXPECT_LE(double(last["train_ssim"]), 1);
  EXPECT_GT(double(last["train_latent_std"]), 0);
  EXPECT_TRUE(fs::exists(folder.file("run/samples/step_000200.png")));
}

TEST(AutoencoderTraining, TheStoredScaleGivesUnitVariance) {
  const TempFolder folder;
  for (const char* more : {"", ", scale: 3"}) {
    const std::string run = folder.file(fmt::format("run{}", *more ? 3 : 1));
    train_into(tiny_autoencoder(30, more, ""), run);
    const ReadConfig read(tiny_autoencoder(1));
    const ModelFiles files(read.registry, Compute{}, "");
    const FirstStage stage = files.first_stage(run + "/model.safetensors", {1, 16, 16}, at::kFloat);
    const auto data = read.config.train->data.make({read.config.image()});
    const LatentSpread spread = latent_spread(*stage.autoencoder, at::kCPU, *data, {1, 16, 16}, 64, 8);
    EXPECT_NEAR(spread.std, 1, 1e-4) << more;
  }
}

TEST(AutoencoderTraining, CentredLatentsHaveNoMean) {
  const TempFolder folder;
  std::string yaml = tiny_autoencoder(30, ", scale: 2");
  yaml.replace(yaml.find("latents: {images: 64}"), 21, "latents: {images: 64, center: true}");
  train_into(yaml, folder.file("run"));
  const ReadConfig read(tiny_autoencoder(1));
  const ModelFiles files(read.registry, Compute{}, "");
  const FirstStage stage = files.first_stage(folder.file("run/model.safetensors"), {1, 16, 16}, at::kFloat);
  const LatentSpread spread =
      latent_spread(*stage.autoencoder, at::kCPU, *read.config.train->data.make({read.config.image()}), {1, 16, 16}, 64, 8);
  EXPECT_NEAR(spread.mean, 0, 1e-4);
  EXPECT_NEAR(spread.std, 1, 1e-4);
}

TEST(AutoencoderTraining, ChannelsOfTheirOwnScaleAreNotCentred) {
  const TempFolder folder;
  std::string yaml = tiny_autoencoder(1, ", stds: [2, 3]");
  yaml.replace(yaml.find("latents: {images: 64}"), 21, "latents: {images: 64, center: true}");
  EXPECT_EQ(error_of([&] { train_into(yaml, folder.file("run")); }),
            "train.latents.center: measures one shift, and autoencoder.network.stds divides each channel by a number of its own");
}

TEST(AutoencoderTraining, TheDiscriminatorWaitsForItsStep) {
  const TempFolder folder;
  train_into(tiny_autoencoder(20, "", adversarial), folder.file("run"));
  for (const auto& line : metrics_of(folder.file("run"))) {
    if (!line.contains("discriminator")) continue;
    if (line["step"] <= 10) {
      EXPECT_EQ(double(line["discriminator"]), 0) << line;
    } else {
      EXPECT_GT(double(line["discriminator"]), 0) << line;
      EXPECT_GT(double(line["adversarial_weight"]), 0) << line;
    }
  }
}

TEST(AutoencoderTraining, ADiffusionModelOnTopHoldsBothStages) {
  const TempFolder folder;
  train_into(tiny_autoencoder(20), folder.file("first"));
  train_latent_model(tiny_latent_model(folder.file("first/model.safetensors")), folder.file("second"));
  const double scale = scale_in(folder.file("first/model.safetensors"));
  fs::remove_all(folder.file("first"));

  const std::string file = folder.file("second/model.safetensors");
  const ModelCard card = read_card(file);
  EXPECT_EQ(card.model.find("autoencoder")->find("type")->scalar, "kl");
  EXPECT_EQ(std::stod(card.model.find("autoencoder")->find("scale")->scalar), scale);
  Value root = Value::map();
  root.set("model", card.model);
  root.set("sample", card.sample);
  const ReadConfig read(root);
  const Files stored = load_files(file);
  Pipeline pipeline(read.config.model, Compute{}, 0, &stored);
  load_weights(file, pipeline.weights());
  SampleRequest request;
  request.images.resize(2);
  const Tensor images = sample_images(pipeline, request, read.config.sample);
  EXPECT_EQ(images.sizes(), (std::vector<int64_t>{2, 1, 16, 16}));
  EXPECT_TRUE(images.isfinite().all().item<bool>());
}

TEST(AutoencoderTraining, LayersOfTheDiscriminatorFitTheImage) {
  EXPECT_EQ(error_of([] { ReadConfig(tiny_autoencoder(1, "", "  loss: {adversarial: {layers: 3}}\n")); }),
            "x.yaml:13:23: train.loss.adversarial: layers = 3 is too many for images of 1x16x16; 2 at most");
}

TEST(AutoencoderTraining, PerceptualDistanceOfAClassifier) {
  const TempFolder folder;
  train_into(tiny_classifier(5), folder.file("classifier"));
  const ReadConfig read(tiny_autoencoder(1));
  const ModelFiles files(read.registry, Compute{}, folder.path());
  const auto make_one = [&](int64_t channels) {
    return make<PerceptualLoss>("{type: classifier, path: classifier/model.safetensors}",
                                PerceptualLoss::Context{{channels, 16, 16}, &files});
  };
  const auto perceptual = make_one(1);
  const Tensor a = at::rand({3, 1, 16, 16}) * 2 - 1, b = at::rand({3, 1, 16, 16}) * 2 - 1;
  EXPECT_EQ(perceptual->distance(a, a).abs().max().item<double>(), 0);
  const Tensor d = perceptual->distance(a, b);
  EXPECT_EQ(d.sizes(), (std::vector<int64_t>{3}));
  EXPECT_GT(d.min().item<double>(), 0);
  EXPECT_LT(d.max().item<double>(), 4);
  Tensor x = a.clone().set_requires_grad(true);
  perceptual->distance(x, b).sum().backward();
  EXPECT_GT(x.grad().abs().max().item<double>(), 0);
  EXPECT_NE(error_of([&] { make_one(3); }).find("sees images of 1 channel, and these are 3x16x16"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
