// brume evaluate: what is measured, and that it does not depend on how it is measured.
#include <ATen/TensorOperators.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "brume/diffusion/classifier_features.h"
#include "brume/train/evaluation.h"
#include "classifier_support.h"
#include "support/process.h"

#define BRUME_NEED_PROGRAM \
  if (!std::filesystem::exists(std::filesystem::path(BRUME_BINARY_DIR) / "brume")) GTEST_SKIP() << "the program is not built"

namespace brume::test {
namespace {

constexpr const char* shapes = "{type: shapes, label: form, rotation: 0, position: 0.2, backgrounds: [dark]}";

/// One classifier and one model, trained for a moment, for all tests.
class Evaluate : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    train_into(tiny_classifier(60), folder_->path() / "clf");
    train_into(
        "model:\n  image: {channels: 1, height: 16, width: 16}\n"
        "  network: {type: unet, channels: 16, multipliers: [1, 2], blocks: 1, groups: 4, middle_attention: false, zero_init: false}\n"
        "  conditioner: {type: class_label, classes: 5}\n"
        "train: {data: shapes, batch: 4, steps: 2, preview: {count: 0}}\n"
        "sample: {steps: 3}\ncompute: {precision: fp32, threads: 2}\n",
        folder_->path() / "model");
    classifier_ = features_of(trained(folder_->path() / "clf"), "clf");
  }
  static void TearDownTestSuite() {
    classifier_.reset();
    delete folder_;
  }
  static std::string file(const std::string& run) { return (folder_->path() / run / "model.safetensors").string(); }
  static FeatureSet features(const std::string& yaml, const std::string& name, int64_t limit) {
    return data_features(*classifier_, *data(yaml), {1, 16, 16}, name, limit, {});
  }
  static std::shared_ptr<const Dataset> data(const std::string& yaml = shapes) { return make<Dataset>(yaml, {.shape = {1, 16, 16}}); }

  static TempFolder* folder_;
  static std::shared_ptr<const Features> classifier_;
};
TempFolder* Evaluate::folder_ = nullptr;
std::shared_ptr<const Features> Evaluate::classifier_;

TEST_F(Evaluate, TheRealSetIsNoDistanceFromItself) {
  const FeatureSet real = features(shapes, "--real", 300);
  const SetFigures f = figures(real, real);
  EXPECT_EQ(f.images, 300);
  EXPECT_EQ(f.frechet, 0);
  EXPECT_GT(f.accuracy, 0.4) << "chance is 0.2";
  EXPECT_EQ(f.spread_by_class.size(), 5u);
  EXPECT_GT(f.spread, 0);
  const FeatureSet again = features(shapes, "--real", 300);
  EXPECT_NEAR(figures(again, real).frechet, 0, 1e-6);
}

TEST_F(Evaluate, OtherImagesOfTheKindAreNearAndOthersFar) {
  const FeatureSet real = features(shapes, "--real", 400);
  const FeatureSet same =
      features("{type: shapes, seed: 1, label: form, rotation: 0, position: 0.2, backgrounds: [dark]}", "--baseline", 400);
  const FeatureSet others = features("{type: shapes, label: form, sizes: [small], backgrounds: [noisy]}", "--baseline", 400);
  EXPECT_LT(2 * figures(same, real).frechet, figures(others, real).frechet);
}

TEST_F(Evaluate, UnlabelledImagesHaveNoAccuracy) {
  FeatureSet set(*classifier_);
  set.add(at::zeros({3, 1, 16, 16}), {{-1, ""}, {-1, ""}, {-1, ""}});
  EXPECT_TRUE(std::isnan(set.accuracy()));
  EXPECT_TRUE(std::isnan(figures(set, set).spread));
}

/// An extractor of no classes, for images of any size: their mean and the mean of their squares.
class Moments final : public Features {
 public:
  std::string name() const override { return "moments"; }
  ImageShape input() const override { return {1, 0, 0}; }
  std::string preprocessing() const override { return "none"; }
  int64_t width() const override { return 2; }
  Output extract(const Tensor& images) const override {
    const Tensor x = images.flatten(1);
    return {at::stack({x.mean(1), (x * x).mean(1)}, 1), {}};
  }
};

TEST_F(Evaluate, AnExtractorWithoutClasses) {
  const Moments moments;
  EXPECT_EQ(images_for(moments, {3, 24, 32}), (ImageShape{1, 24, 32}));
  EXPECT_EQ(images_for(*classifier_, {3, 24, 32}), (ImageShape{1, 16, 16}));
  const FeatureSet set = data_features(moments, *data(), {1, 16, 16}, "--real", 50, {});
  const SetFigures f = figures(set, set);
  EXPECT_EQ(set.features().sizes(), at::IntArrayRef({50, 2}));
  EXPECT_TRUE(std::isnan(f.accuracy));
  EXPECT_EQ(f.spread_by_class.size(), 5u);
  EXPECT_GT(f.spread, 0);
}

TEST_F(Evaluate, ClassesAndImagesMustFit) {
  EXPECT_EQ(error_of([&] { features("{type: shapes, forms: [star, cross]}", "--real", 10); }),
            "--real has 2 classes, and classifier clf has 5");
  const auto model = [](const std::string& image, int64_t classes) {
    const ReadConfig read(
        fmt::format("model: {{image: {}, network: {{type: unet, channels: 16, groups: 4, multipliers: [1]}}, "
                    "conditioner: {{type: class_label, classes: {}}}}}",
                    image, classes));
    const Pipeline pipeline(read.config.model, Compute{});
    return error_of([&] { sample_features(*classifier_, pipeline, read.config.sample, 4, 2, 0, {}); });
  };
  EXPECT_EQ(model("{channels: 3, height: 16, width: 16}", 5), "the model makes 3x16x16 images, and classifier clf takes 1x16x16");
  EXPECT_EQ(model("{channels: 1, height: 16, width: 16}", 6), "the model has 6 classes, and classifier clf has 5");
}

TEST_F(Evaluate, SamplesDoNotDependOnTheBatch) {
  const std::string path = file("model");
  const ModelCard card = read_card(path);
  Value root = Value::map();
  root.set("model", card.model);
  root.set("sample", card.sample);
  apply_override(root, "sample.sampler={type: ddim, eta: 1}");  // noise at every step
  const ReadConfig read(root);
  Pipeline pipeline(read.config.model, Compute{});
  load_weights(path, pipeline.weights());
  pipeline.freeze();
  const auto sampled = [&](int64_t batch, uint64_t seed) {
    return sample_features(*classifier_, pipeline, read.config.sample, 11, batch, seed, {}).features();
  };
  const Tensor all = sampled(11, 3);
  EXPECT_EQ(all.sizes(), at::IntArrayRef({11, 32}));
  for (const int64_t batch : {1, 4, 64}) EXPECT_TRUE(sampled(batch, 3).equal(all)) << batch;
  EXPECT_FALSE(sampled(11, 4).equal(all));
  EXPECT_THROW(sample_features(*classifier_, pipeline, read.config.sample, 4, 2, 0, [](int64_t first, const Step&) { return first < 2; }),
               Interrupted);
}

TEST_F(Evaluate, TheProgramReports) {
  BRUME_NEED_PROGRAM;
  const Finished accuracy = run_brume({"evaluate", file("clf"), "--real", shapes, "--limit", "300"});
  EXPECT_EQ(accuracy.code, 0) << accuracy.err;
  EXPECT_TRUE(without(accuracy.out, *folder_).starts_with("clf/model.safetensors: accuracy ")) << accuracy.out;
  EXPECT_TRUE(accuracy.out.ends_with(" on 300 images\n")) << accuracy.out;
  const std::string json = folder_->file("out.json");
  const Finished table = run_brume({"evaluate", file("model"), "--classifier", file("clf"), "--real", shapes, "--baseline", shapes,
                                    "--limit", "100", "-n", "20", "--cfg", "1,2", "--batch", "8", "--json", json});
  EXPECT_EQ(table.code, 0) << table.err;
  for (const char* part : {"\nreal ", "\nbaseline ", "\ncfg 1 ", "\ncfg 2 ", "note: 20 samples are few for 32 features"})
    EXPECT_NE(table.out.find(part), std::string::npos) << part << " in\n" << table.out;
  for (const std::string& same : {"classifier:" + file("clf"), "{type: classifier, path: '" + file("clf") + "'}"}) {
    const Finished again = run_brume({"evaluate", file("model"), "--features", same, "--real", shapes, "--baseline", shapes, "--limit",
                                      "100", "-n", "20", "--cfg", "1,2", "--batch", "8"});
    EXPECT_EQ(again.out, table.out) << again.err;
  }
  const auto read = nlohmann::json::parse(std::ifstream(json));
  ASSERT_EQ(read["sets"].size(), 4u);
  EXPECT_LT(read["sets"][1]["frechet_distance"].get<double>(), 1e-6);
  EXPECT_EQ(read["sets"][2]["images"], 20);
  EXPECT_EQ(read["sets"][3]["spread_by_class"].size(), 5u);
}

TEST_F(Evaluate, SamplersAtEqualCalls) {
  BRUME_NEED_PROGRAM;
  const std::string json = folder_->file("calls.json");
  const auto evaluated = [&](std::vector<std::string> more) {
    std::vector<std::string> words{"evaluate", file("model"), "--classifier", file("clf"), "--real", shapes, "--limit", "50", "-n", "4"};
    words.insert(words.end(), more.begin(), more.end());
    return run_brume(words);
  };
  const Finished table = evaluated({"--sampler", "ddim, heun", "--cfg", "2", "--calls", "4,7", "--json", json});
  EXPECT_EQ(table.code, 0) << table.err;
  for (const char* part : {"\nddim, cfg 2, 4 steps, 4 calls ", "\nddim, cfg 2, 7 steps, 7 calls ", "\nheun, cfg 2, 2 steps, 3 calls ",
                           "\nheun, cfg 2, 4 steps, 7 calls ", ": 2 to 7 steps, seed 0"})
    EXPECT_NE(table.out.find(part), std::string::npos) << part << " in\n" << table.out;
  const auto sets = nlohmann::json::parse(std::ifstream(json))["sets"];
  ASSERT_EQ(sets.size(), 5u);
  EXPECT_FALSE(sets[0].contains("calls")) << "real images";
  EXPECT_EQ(sets[3]["steps"], 2);
  EXPECT_EQ(sets[3]["calls"], 3);
  EXPECT_EQ(sets[4]["steps"], 4);
  EXPECT_EQ(sets[4]["calls"], 7);
  const Finished steps = evaluated({"--sampler", "heun", "--cfg", "2", "--steps", "4", "--json", json});
  EXPECT_EQ(steps.code, 0) << steps.err;
  EXPECT_EQ(nlohmann::json::parse(std::ifstream(json))["sets"][1]["frechet_distance"], sets[4]["frechet_distance"]);
  EXPECT_NE(evaluated({"--calls", "4"}).out.find("\n4 steps, 4 calls "), std::string::npos);
}

TEST_F(Evaluate, BudgetsOfCallsThatCannotBe) {
  BRUME_NEED_PROGRAM;
  const auto said = [](std::vector<std::string> more, const std::string& run = "model") {
    std::vector<std::string> words{"evaluate", file(run), "--real", shapes, "-n", "4"};
    if (run == "model") words.insert(words.end(), {"--classifier", file("clf")});
    words.insert(words.end(), more.begin(), more.end());
    const Finished done = run_brume(words);
    EXPECT_EQ(done.code, 2) << done.out;
    return without(done.err, *folder_);
  };
  EXPECT_EQ(said({"--calls", "8", "--sampler", "ddim,rk45"}),
            "error: --calls 8: rk45 chooses the number of its steps by a tolerance; evaluate it without --calls\n");
  EXPECT_EQ(said({"--calls", "8,1", "--sampler", "predictor_corrector"}),
            "error: --calls 1: is too small for predictor_corrector, whose first step makes more\n");
  EXPECT_EQ(said({"--calls", "8"}, "clf"), "error: --calls: clf/model.safetensors is a classifier, which only has an accuracy on --real\n");
  for (const char* value : {"0", "x"}) {
    const std::string error = said({"--calls", value});
    EXPECT_NE(error.find("--calls"), std::string::npos) << error;
    EXPECT_NE(error.find(value), std::string::npos) << error;
  }
  const std::string both = said({"--calls", "8", "--steps", "4"});
  EXPECT_NE(both.find("--calls"), std::string::npos) << both;
  EXPECT_NE(both.find("--steps"), std::string::npos) << both;
}

TEST_F(Evaluate, TheProgramNamesMistakes) {
  BRUME_NEED_PROGRAM;
  const auto said = [](const std::vector<std::string>& arguments) {
    const Finished done = run_brume(arguments);
    EXPECT_EQ(done.code, 2);
    return without(done.err, *folder_);
  };
  const std::string model = file("model"), classifier = file("clf");
  EXPECT_EQ(said({"sample", classifier}),
            "error: clf/model.safetensors: is a classifier, not a diffusion model; `brume evaluate` is for it\n");
  EXPECT_EQ(said({"evaluate", model, "--real", shapes}),
            "error: evaluate needs --features, an extractor such as classifier:FILE; --classifier FILE is short for it\n");
  EXPECT_EQ(said({"evaluate", model, "--classifier", model, "--real", shapes}),
            "error: features: model/model.safetensors: is a diffusion model, not a classifier\n");
  EXPECT_EQ(said({"evaluate", model, "--features", "clasifier:" + classifier, "--real", shapes}),
            "error: features: unknown features 'clasifier'; did you mean 'classifier'?\n");
  EXPECT_EQ(said({"evaluate", classifier, "--cfg", "2", "--real", shapes}),
            "error: --cfg: clf/model.safetensors is a classifier, which only has an accuracy on --real\n");
  EXPECT_EQ(said({"evaluate", classifier, "--real", "{type: shapes, sede: 1}"}),
            "error: --real:1:16: dataset: unknown key 'sede'; did you mean 'seed'?\n");
}

}  // namespace
}  // namespace brume::test
