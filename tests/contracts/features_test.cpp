// What every extractor of features keeps: one row per image, that depends on that image alone.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/rand.h>

#include <thread>

#include "brume/core/features.h"
#include "brume/diffusion/model_files.h"
#include "brume/weights/safetensors.h"
#include "support/inception.h"
#include "support/model_file.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "support/vision.h"

namespace brume::test {
namespace {

class FeaturesContract : public testing::TestWithParam<Specimen> {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    classifier_file(*folder_, 1);
    write_inception(folder_->file("inception.safetensors"), 1);
    write_safetensors(folder_->file("clip_image.safetensors"), clip_tensors());
    write_safetensors(folder_->file("dinov2.safetensors"), dinov2_tensors(4, true));
  }
  static void TearDownTestSuite() { delete folder_; }
  void SetUp() override {
    const ModelFiles models(builtins(), Compute{}, folder_->path());
    std::string yaml = GetParam().yaml;
    for (const char* file : {"inception.safetensors", "clip_image.safetensors", "dinov2.safetensors"})
      if (const size_t at = yaml.find(file); at != std::string::npos) yaml.insert(at, folder_->path().string() + "/");
    features_ = make<Features>(yaml, {[&](const std::string& path) { return models.classifier_features(path); }});
    image_ = features_->input();
    if (image_.height == 0) image_.height = 24, image_.width = 16;
  }
  Tensor images(int64_t count, uint64_t seed = 0) const {
    at::Generator random = at::detail::createCPUGenerator(seed);
    return at::rand({count, image_.channels, image_.height, image_.width}, random, at::TensorOptions()) * 2 - 1;
  }
  static TempFolder* folder_;
  std::shared_ptr<const Features> features_;
  ImageShape image_;
};
TempFolder* FeaturesContract::folder_ = nullptr;

TEST_P(FeaturesContract, SaysWhatItIsAndTakes) {
  EXPECT_FALSE(features_->name().empty());
  EXPECT_FALSE(features_->preprocessing().empty());
  EXPECT_GT(features_->input().channels, 0);
  EXPECT_EQ(features_->input().height == 0, features_->input().width == 0);
  EXPECT_NE(features_->classes(), 1);
}

TEST_P(FeaturesContract, OneRowPerImage) {
  const Features::Output y = features_->extract(images(3));
  EXPECT_EQ(y.features.sizes(), at::IntArrayRef({3, features_->width()}));
  EXPECT_EQ(y.features.scalar_type(), at::kFloat);
  EXPECT_TRUE(y.features.isfinite().all().item<bool>());
  EXPECT_FALSE(y.features.requires_grad());
  EXPECT_FALSE(y.features[0].equal(y.features[1])) << "images that differ";
  ASSERT_EQ(y.logits.defined(), features_->logit_width() > 0);
  if (y.logits.defined()) {
    EXPECT_EQ(y.logits.sizes(), at::IntArrayRef({3, features_->logit_width()}));
  }
  ASSERT_EQ(y.spatial.defined(), features_->spatial_width() > 0);
  if (y.spatial.defined()) {
    EXPECT_EQ(y.spatial.sizes(), at::IntArrayRef({3, features_->spatial_width()}));
  }
}

TEST_P(FeaturesContract, PatchesAreAGridPerImageThatDependsOnItAlone) {
  const Tensor x = images(3), all = features_->patches(x);
  ASSERT_EQ(all.defined(), features_->patch_width() > 0);
  if (!all.defined()) return;
  ASSERT_EQ(all.dim(), 4);
  EXPECT_EQ(all.size(0), 3);
  EXPECT_EQ(all.size(1), features_->patch_width());
  EXPECT_EQ(all.scalar_type(), at::kFloat);
  EXPECT_FALSE(all.requires_grad());
  EXPECT_FALSE(all[0].equal(all[1])) << "images that differ";
  for (int64_t i = 0; i < 3; ++i) EXPECT_TRUE(features_->patches(x.narrow(0, i, 1)).equal(all.narrow(0, i, 1))) << i;
}

TEST_P(FeaturesContract, ARowDependsOnItsImageAlone) {
  const Tensor x = images(5), all = features_->extract(x).features;
  for (int64_t i = 0; i < 5; ++i) EXPECT_TRUE(features_->extract(x.narrow(0, i, 1)).features.equal(all.narrow(0, i, 1))) << i;
}

TEST_P(FeaturesContract, ThreadsExtractWhatOneDoes) {
  std::vector<Tensor> serial, parallel(4);
  for (uint64_t i = 0; i < 4; ++i) serial.push_back(features_->extract(images(2, i)).features);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 4; ++i) threads.emplace_back([&, i] { parallel[i] = features_->extract(images(2, i)).features; });
  for (std::thread& t : threads) t.join();
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(serial[i].equal(parallel[i])) << i;
}

TEST_P(FeaturesContract, OtherImagesAreRefused) {
  image_.channels += 1;
  EXPECT_THROW(features_->extract(images(1)), ConfigError);
}

INSTANTIATE_TEST_SUITE_P(Registry, FeaturesContract, testing::ValuesIn(specimens("features")), readable);

TEST(ClassifierFeatures, NeedsItsFile) {
  const ModelFiles models(builtins(), Compute{}, "");
  const Features::Context context{[&](const std::string& path) { return models.classifier_features(path); }};
  EXPECT_EQ(error_of([&] { make<Features>("classifier", context); }),
            "test.yaml:1:1: features: path: the checkpoint of a classifier is missing");
  EXPECT_EQ(error_of([&] { make<Features>("{type: classifier, path: absent.safetensors}", context); }),
            "test.yaml:1:1: features: there is no file 'absent.safetensors'");
}

}  // namespace
}  // namespace brume::test
