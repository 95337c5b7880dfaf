// brume evaluate --metric fid,kid and brume statistics: images in files, judged as sets.
#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "brume/image/image.h"
#include "brume/train/feature_summary.h"
#include "brume/weights/npz.h"
#include "support/model_file.h"
#include "support/process.h"
#include "support/registry.h"

namespace brume::test {
namespace {

constexpr const char* all_metrics = "fid,kid,precision_recall,density_coverage,cmmd,inception_score";

/// An extractor of two numbers, for images of any size: the mean of each half of the pixels.
class Halves final : public Features {
 public:
  explicit Halves(std::string hash = "0123", std::string preprocessing = "none") : hash_(hash), preprocessing_(preprocessing) {}
  std::string name() const override { return "halves"; }
  std::string hash() const override { return hash_; }
  ImageShape input() const override { return {1, 0, 0}; }
  std::string preprocessing() const override { return preprocessing_; }
  int64_t width() const override { return 2; }
  Output extract(const Tensor& images) const override { return {images.flatten(1).view({images.size(0), 2, -1}).mean(2), {}}; }

 private:
  std::string hash_, preprocessing_;
};

class EvaluateSets : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    classifier_file(*folder_, 1);
    std::filesystem::rename(folder_->file("classifier.safetensors"), folder_->file("other.safetensors"));
    classifier_file(*folder_, 2);
    write_images("real", 0), write_images("fake", 40);
  }
  static void TearDownTestSuite() { delete folder_; }
  /// 24 grey images of 16x16 pixels, in two folders.
  static void write_images(const std::string& name, int shift) {
    for (int i = 0; i < 24; ++i) {
      Image image(16, 16, 1);
      for (size_t p = 0; p < image.pixels.size(); ++p)
        image.pixels[p] = uint8_t((p * p * size_t(i + 1) / 7 + p % 16 * size_t(shift) + size_t(i * 3)) % 256);
      const std::string file = folder_->file(name + (i % 2 ? "/a" : "/b") + "/" + std::to_string(100 + i) + ".png");
      std::filesystem::create_directories(std::filesystem::path(file).parent_path());
      write_png(file, image);
    }
  }
  static Finished brume(std::vector<std::string> words) { return run_brume(std::move(words), {.folder = folder_->path()}); }
  static nlohmann::json evaluated(std::vector<std::string> more) {
    std::vector<std::string> words{"evaluate", "--features", "classifier:classifier.safetensors", "--json", "out.json"};
    words.insert(words.end(), more.begin(), more.end());
    const Finished done = brume(words);
    EXPECT_EQ(done.code, 0) << done.err;
    return nlohmann::json::parse(read_text(folder_->path() / "out.json"));
  }
  static TempFolder* folder_;
};
TempFolder* EvaluateSets::folder_ = nullptr;

TEST_F(EvaluateSets, FoldersAreComparedWhateverTheBatch) {
  const auto a = evaluated({"--images", "fake", "--real", "real", "--metric", all_metrics});
  const auto b = evaluated({"--images", "fake", "--real", "real", "--metric", all_metrics, "--batch", "5"});
  EXPECT_EQ(a, b);
  const auto& set = a["sets"][0];
  EXPECT_EQ(set["images"], 24);
  EXPECT_GT(set["figures"]["fid"], 0);
  EXPECT_GE(set["figures"]["inception_score"], 1);
  EXPECT_EQ(a["features"]["hash"].get<std::string>().size(), 64u);
  EXPECT_EQ(a["real"]["images"], 24);
  EXPECT_NE(a["real"]["hash"], set["hash"]);
  const auto same = evaluated({"--images", "real", "--real", "real", "--metric", all_metrics});
  EXPECT_NEAR(same["sets"][0]["figures"]["fid"].get<double>(), 0, 1e-6);
  EXPECT_EQ(same["sets"][0]["figures"]["precision"], 1);
  EXPECT_EQ(same["sets"][0]["hash"], same["real"]["hash"]);
}

TEST_F(EvaluateSets, StatisticsStandForTheirImages) {
  const Finished made = brume({"statistics", "real", "--features", "classifier:classifier.safetensors", "-o", "real.npz"});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_NE(made.out.find("real.npz: 24 images, "), std::string::npos) << made.out;
  const auto images = evaluated({"--images", "fake", "--real", "real", "--metric", "fid"});
  const auto file = evaluated({"--images", "fake", "--real", "real.npz", "--metric", "fid"});
  EXPECT_EQ(images["sets"][0]["figures"]["fid"], file["sets"][0]["figures"]["fid"]);
  EXPECT_EQ(file["real"]["images"], 24);
  const Finished other =
      brume({"evaluate", "--images", "fake", "--real", "real.npz", "--metric", "fid", "--features", "classifier:other.safetensors"});
  EXPECT_EQ(other.code, 2);
  EXPECT_NE(other.err.find("real.npz: was made with weights '"), std::string::npos) << other.err;
  const Finished rows = brume(
      {"evaluate", "--images", "fake", "--real", "real.npz", "--metric", "fid,kid", "--features", "classifier:classifier.safetensors"});
  EXPECT_EQ(rows.err, "error: --real: real.npz has statistics alone, and fid,kid needs the images\n");
}

TEST_F(EvaluateSets, MistakesAreNamed) {
  std::filesystem::create_directories(folder_->file("empty"));
  const auto said = [&](std::vector<std::string> more) {
    std::vector<std::string> words{"evaluate", "--features", "classifier:classifier.safetensors"};
    words.insert(words.end(), more.begin(), more.end());
    const Finished done = brume(words);
    EXPECT_EQ(done.code, 2);
    return done.err.substr(std::min(done.err.find("error: "), done.err.size()));  // after the lines of progress
  };
  EXPECT_EQ(said({"--images", "fake", "--real", "real", "--metric", "fdi"}),
            "error: --metric:1:1: set_metric: unknown set_metric 'fdi'; did you mean 'fid'?\n");
  EXPECT_EQ(said({"--images", "empty", "--real", "real", "--metric", "fid"}).substr(0, 52),
            "error: --images: there is no image in 'empty' (looke");
  EXPECT_EQ(said({"--images", "fake", "--metric", "fid"}), "error: --metric: fid needs --real, the real images\n");
  EXPECT_EQ(said({"--images", "fake", "--real", "real", "--metric", "sfid"}).substr(0, 65),
            "error: the metrics need spatial features, and classifier classifi");
  EXPECT_EQ(said({"--images", "fake", "--real", "real", "--metric", "{type: precision_recall, k: 24}"}),
            "error: precision_recall: --images has 24 images, and k = 24 needs 25\n");
  EXPECT_EQ(said({"--metric", "fid", "--real", "real"}),
            "error: evaluate needs either a CHECKPOINT, whose samples are judged, or --images\n");
}

TEST(Statistics, AreReadAsTheyWereWritten) {
  const TempFolder folder;
  const Halves halves;
  FeatureSummarizer summarizer(halves, {.statistics = true}, "a set");
  summarizer.add(at::zeros({3, 1, 2, 2}));
  summarizer.add(at::zeros({1, 1, 4, 2}) + 0.5);
  EXPECT_EQ(summarizer.notes(), std::vector<std::string>{"sizes from 2x2 to 4x2"});
  write_statistics(folder.file("s.npz"), summarizer.summary(), halves, "fnv1a:1");
  const SetMetric::Needs needs{.statistics = true};
  const FeatureSummary read = read_statistics(folder.file("s.npz"), halves, needs);
  EXPECT_EQ(read.images, 4);
  EXPECT_TRUE(read.statistics.mean.equal(summarizer.summary().statistics.mean));
  EXPECT_TRUE(read.statistics.covariance.equal(summarizer.summary().statistics.covariance));
  const auto error = [&](const Features& other) {
    return without(error_of([&] { read_statistics(folder.file("s.npz"), other, needs); }), folder);
  };
  EXPECT_EQ(error(Halves("4567")), "s.npz: was made with weights '0123', and the samples are measured with '4567'");
  EXPECT_EQ(error(Halves("0123", "resized")), "s.npz: was made with preprocessing 'none', and the samples are measured with 'resized'");
}

TEST(Statistics, WhatIsWrongIsNamed) {
  const TempFolder folder;
  const Halves halves;
  const auto error = [&](const NamedTensors& arrays) {
    write_npz(folder.file("s.npz"), arrays);
    return without(error_of([&] { read_statistics(folder.file("s.npz"), halves, {.statistics = true}); }), folder);
  };
  const Tensor mean = at::zeros({2}, at::kDouble), covariance = at::eye(2, at::kDouble), skew = covariance.clone();
  skew[0][1] = 0.5;
  EXPECT_EQ(error({{"mu", mean}, {"sigma", covariance}}), "no error");
  EXPECT_EQ(error({{"mu", mean}}), "s.npz: has no array 'sigma', only mu");
  EXPECT_EQ(error({{"mu", at::zeros({3}, at::kDouble)}, {"sigma", at::eye(3, at::kDouble)}}),
            "s.npz: 'mu' is of 3 features, and halves has 2");
  EXPECT_EQ(error({{"mu", mean}, {"sigma", mean}}), "s.npz: 'mu' and 'sigma' are not a mean [F] and its covariance [F, F]");
  EXPECT_EQ(error({{"mu", mean}, {"sigma", covariance * std::numeric_limits<double>::quiet_NaN()}}),
            "s.npz: 'sigma' has values that are not finite");
  EXPECT_EQ(error({{"mu", mean}, {"sigma", skew}}), "s.npz: 'sigma' is not symmetric, so it is no covariance");
}

}  // namespace
}  // namespace brume::test
