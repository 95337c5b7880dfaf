// brume evaluate --metric fid,kid and brume statistics: images in files, judged as sets.
#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
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
  explicit Halves(std::string hash = "0123", std::string preprocessing = "none", at::ScalarType dtype = at::kFloat)
      : hash_(hash), preprocessing_(preprocessing), dtype_(dtype) {}
  std::string name() const override { return "halves"; }
  std::string hash() const override { return hash_; }
  at::ScalarType dtype() const override { return dtype_; }
  std::string frechet_name() const override { return "fid"; }
  ImageShape input() const override { return {1, 0, 0}; }
  std::string preprocessing() const override { return preprocessing_; }
  int64_t width() const override { return 2; }
  Output extract(const Tensor& images) const override { return {images.flatten(1).view({images.size(0), 2, -1}).mean(2), {}}; }

 private:
  std::string hash_, preprocessing_;
  at::ScalarType dtype_;
};

/// The bytes that hexadecimal digits stand for.
std::string from_hex(std::string_view digits) {
  std::string bytes;
  for (size_t i = 0; i < digits.size(); i += 2) bytes += static_cast<char>(std::stoi(std::string(digits.substr(i, 2)), nullptr, 16));
  return bytes;
}

/// pickle.dumps of {"num_images": 4, "fid": {"mu": [0.25, 0.5], "sigma": [[1, 0.5], [0.5, 2]]}, "fd_dinov2": …} by Python 3.11 and
/// NumPy 1.24.
constexpr const char* edm2_protocol_4 =
    "800495b4010000000000007d94288c0a6e756d5f696d61676573944b048c03666964947d94288c026d75948c156e756d70792e636f72652e6d756c7469617272617994"
    "8c"
    "0c5f7265636f6e7374727563749493948c056e756d7079948c076e6461727261799493944b0085944301629487945294284b014b02859468088c056474797065949394"
    "8c"
    "02663894898887945294284b038c013c944e4e4e4affffffff4affffffff4b00749462894310000000000000d03f000000000000e03f947494628c057369676d619468"
    "0"
    "7680a4b008594680c87945294284b014b024b0286946814894320000000000000f03f000000000000e03f000000000000e03f000000000000004094749462758c09666"
    "4"
    "5f64696e6f7632947d942868046807680a4b008594680c87945294284b014b038594681489431800000000000000000000000000000000000000000000000094749462"
    "68196807680a4b008594680c87945294284b014b034b0386946814894348000000000000f03f0000000000000000000000000000000000000000000000000000000000"
    "00"
    "f03f000000000000000000000000000000000000000000000000000000000000f03f9474946275752e";
constexpr const char* edm2_protocol_5 =
    "80059590010000000000007d94288c0a6e756d5f696d61676573944b048c03666964947d94288c026d75948c126e756d70792e636f72652e6e756d65726963948c0b5f"
    "66"
    "726f6d62756666657294939428961000000000000000000000000000d03f000000000000e03f948c056e756d7079948c0564747970659493948c026638948988879452"
    "94"
    "284b038c013c944e4e4e4affffffff4affffffff4b007494624b0285948c014394749452948c057369676d6194680728962000000000000000000000000000f03f0000"
    "00"
    "000000e03f000000000000e03f000000000000004094680e4b024b028694681274945294758c0966645f64696e6f7632947d9428680468072896180000000000000000"
    "000000000000000000000000000000000000000000000094680e4b0385946812749452946815680728964800000000000000000000000000f03f000000000000000000"
    "0"
    "00000000000000000000000000000000000000000f03f000000000000000000000000000000000000000000000000000000000000f03f94680e4b034b0386946812749"
    "4"
    "529475752e";

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

TEST_F(EvaluateSets, AnAdmFileGivesItsMomentsToFidAndItsImagesToTheRest) {
  ASSERT_EQ(brume({"statistics", "real", "--features", "classifier:classifier.safetensors", "-o", "moments.npz"}).code, 0);
  const NpzFile moments(folder_->file("moments.npz"));
  Tensor other = at::zeros({8, 16, 16, 1}, at::kByte);
  for (int64_t i = 0; i < 8; ++i) other[i].fill_(i * 30);
  write_npz(folder_->file("adm.npz"), {{"mu", moments.array("mu")}, {"sigma", moments.array("sigma")}, {"arr_0", other}});
  write_npz(folder_->file("other.npz"), {{"arr_0", other}});
  const auto figures = [](const nlohmann::json& json) { return json["sets"][0]["figures"]; };
  const auto adm = evaluated({"--images", "fake", "--real", "adm.npz", "--metric", "fid,precision_recall"});
  EXPECT_EQ(figures(adm)["fid"], figures(evaluated({"--images", "fake", "--real", "moments.npz", "--metric", "fid"}))["fid"]);
  EXPECT_EQ(figures(adm)["recall"],
            figures(evaluated({"--images", "fake", "--real", "other.npz", "--metric", "precision_recall"}))["recall"]);
  EXPECT_NE(figures(adm)["fid"], figures(evaluated({"--images", "fake", "--real", "other.npz", "--metric", "fid"}))["fid"]);
  EXPECT_TRUE(adm["real"]["hash"].get<std::string>().starts_with("sha256:"));
}

TEST_F(EvaluateSets, RunsThatTheFileHasAreNotComputedAgain) {
  model_file(*folder_,
             "{image: {channels: 1, height: 16, width: 16}, conditioner: {type: class_label, classes: 5, dropout: 0.1}, "
             "network: {type: unet, zero_init: false, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4}}");
  const auto words = [](const std::string& cfg, const std::string& json, const std::string& seed = "0") {
    return std::vector<std::string>{"evaluate",   "model.safetensors",
                                    "--features", "classifier:classifier.safetensors",
                                    "--metric",   "fid,kid",
                                    "--real",     "real",
                                    "-n",         "6",
                                    "--seed",     seed,
                                    "--cfg",      cfg,
                                    "--steps",    "1,2",
                                    "--sampler",  "ddim,heun",
                                    "--json",     json};
  };
  const auto json = [](const std::string& name) { return nlohmann::json::parse(read_text(folder_->path() / name)); };
  const Finished first = brume(words("1", "some.json"));
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_EQ(json("some.json")["sets"].size(), 4u);
  nlohmann::json cut = json("some.json");  // as it was after the third run
  cut["sets"].erase(3);
  folder_->file("some.json", cut.dump());
  const Finished second = brume(words("1,2", "some.json"));
  ASSERT_EQ(second.code, 0) << second.err;
  EXPECT_NE(second.out.find("ddim, cfg 1, 2 steps: taken from some.json"), std::string::npos) << second.out;
  EXPECT_EQ(second.out.find("heun, cfg 1, 2 steps: taken from some.json"), std::string::npos) << second.out;
  ASSERT_EQ(brume(words("1,2", "whole.json")).code, 0);
  EXPECT_EQ(json("some.json"), json("whole.json"));
  EXPECT_EQ(json("whole.json")["sets"].size(), 8u);
  const Finished other = brume(words("1", "some.json", "1"));
  EXPECT_NE(other.err.find("error: some.json was judged with seed '0', and this evaluation with '1'; name another file with --json\n"),
            std::string::npos)
      << other.err;
}

TEST_F(EvaluateSets, FilesAreComparedIfTheirFiguresCanBe) {
  for (const auto& [name, features] : {std::pair{"a.json", "classifier"}, {"b.json", "classifier"}, {"c.json", "other"}})
    ASSERT_EQ(brume({"evaluate", "--images", "fake", "--real", "real", "--metric", "fid", "--json", name, "--features",
                     fmt::format("classifier:{}.safetensors", features)})
                  .code,
              0);
  const Finished table = brume({"evaluate", "--compare", "a.json,b.json"});
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_NE(table.out.find("b.json: images"), std::string::npos) << table.out;
  const Finished other = brume({"evaluate", "--compare", "a.json,c.json"});
  EXPECT_EQ(other.code, 2);
  EXPECT_TRUE(other.err.starts_with("error: a.json was judged with features.hash '")) << other.err;
  ASSERT_EQ(brume({"evaluate", "--images", "fake", "--real", "real", "--metric", "fid", "--limit", "20", "--json", "d.json", "--features",
                   "classifier:classifier.safetensors"})
                .code,
            0);
  EXPECT_EQ(brume({"evaluate", "--compare", "a.json,d.json"}).code, 2);
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
  EXPECT_EQ(error(Halves("0123", "none", at::kBFloat16)),
            "s.npz: was made with precision 'fp32', and the samples are measured with 'bf16'");
  EXPECT_EQ(error(Halves("0123", "resized")), "s.npz: was made with preprocessing 'none', and the samples are measured with 'resized'");
}

TEST(Statistics, PicklesOfEdm2AreReadWithoutExecutingThem) {
  const TempFolder folder;
  const Halves halves;
  const SetMetric::Needs needs{.statistics = true};
  for (const char* pickle : {edm2_protocol_4, edm2_protocol_5}) {
    const FeatureSummary s = read_statistics(folder.file("s.pkl", from_hex(pickle)), halves, needs);
    EXPECT_EQ(s.images, 4);
    EXPECT_TRUE(s.statistics.mean.equal(at::tensor({0.25, 0.5}, at::kDouble)));
    EXPECT_TRUE(s.statistics.covariance.equal(at::tensor({1.0, 0.5, 0.5, 2.0}, at::kDouble).view({2, 2})));
  }
  const auto error = [&](const std::string& bytes) {
    return without(error_of([&] { read_statistics(folder.file("s.pkl", bytes), halves, needs); }), folder);
  };
  EXPECT_EQ(
      error("\x80\x02"
            "cos\nsystem\nX\x02\x00\x00\x00ls\x85R."),
      "s.pkl: refuses to load 'os.system': only arrays of numpy and plain data are read from a pickle, and nothing in it is executed");
  EXPECT_EQ(error("\x80\x02}."), "s.pkl: has statistics of nothing, and none of the features of halves ('fid')");
  EXPECT_EQ(error("text"), "s.pkl: is no pickle of the protocols 2 to 5");
}

TEST(Statistics, APickleIsReadAsItWasWritten) {
  const TempFolder folder;
  const Halves halves;
  FeatureSummarizer summarizer(halves, {.statistics = true}, "a set");
  summarizer.add(at::eye(4).view({4, 1, 2, 2}));
  write_statistics(folder.file("s.pkl"), summarizer.summary(), halves, "fnv1a:1");
  const FeatureSummary read = read_statistics(folder.file("s.pkl"), halves, {.statistics = true});
  EXPECT_EQ(read.images, 4);
  EXPECT_TRUE(read.statistics.covariance.equal(summarizer.summary().statistics.covariance));
  EXPECT_NE(error_of([&] { read_statistics(folder.file("s.pkl"), Halves("4567"), {.statistics = true}); }).find("was made with weights"),
            std::string::npos);
}

TEST(Statistics, ValuesThatAreNotFiniteAreRefused) {
  const Halves halves;
  FeatureSummarizer summarizer(halves, {.statistics = true}, "a set");
  summarizer.add(at::zeros({3, 1, 2, 2}));
  Tensor images = at::zeros({2, 1, 2, 2});
  images[1][0][0][0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(error_of([&] { summarizer.add(images); }), "a set: image 4 has values that are not finite");
  class Infinite final : public Features {
   public:
    std::string name() const override { return "infinite"; }
    ImageShape input() const override { return {1, 0, 0}; }
    std::string preprocessing() const override { return "none"; }
    int64_t width() const override { return 2; }
    Output extract(const Tensor& x) const override { return {at::zeros({x.size(0), 2}) / 0, {}}; }
  } const infinite{};
  FeatureSummarizer other(infinite, {.statistics = true}, "a set");
  EXPECT_EQ(error_of([&] { other.add(at::zeros({2, 1, 2, 2})); }), "a set: image 0 has features that are not finite");
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
  EXPECT_EQ(error({{"sigma", covariance}}), "s.npz: has no array 'mu', only sigma");
  EXPECT_TRUE(holds_statistics(folder.file("s.npz")));
  EXPECT_EQ(error({{"mu", mean}, {"sigma", -covariance}}), "s.npz: 'sigma' has a variance below 0, so it is no covariance");
  EXPECT_EQ(error({{"mu", at::zeros({3}, at::kDouble)}, {"sigma", at::eye(3, at::kDouble)}}),
            "s.npz: 'mu' is of 3 features, and halves has 2");
  EXPECT_EQ(error({{"mu", mean}, {"sigma", mean}}), "s.npz: 'mu' and 'sigma' are not a mean [F] and its covariance [F, F]");
  EXPECT_EQ(error({{"mu", mean}, {"sigma", covariance * std::numeric_limits<double>::quiet_NaN()}}),
            "s.npz: 'sigma' has values that are not finite");
  EXPECT_EQ(error({{"mu", mean}, {"sigma", skew}}), "s.npz: 'sigma' is not symmetric, so it is no covariance");
}

}  // namespace
}  // namespace brume::test
