// brume sample with guidances that need other models, from an image, and under a mask; and what it says when something is wrong.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "brume/image/image.h"
#include "brume/weights/weights_file.h"
#include "support/process.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

constexpr const char* data = "{type: shapes, label: form, rotation: 0}";

std::string model_yaml(const std::string& conditioner) {
  return "model:\n  image: {channels: 3, height: 8, width: 8}\n"
         "  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4}\n"
         "  conditioner: " +
         conditioner + "\n  noise: cosine\n  parameterization: v\ntrain:\n  data: " + data +
         "\n  objective: {type: simple, target: v}\n  batch: 4\n  steps: 8\n  preview: {count: 0}\nsample:\n  steps: 5\n  guidance: "
         "[clip]\n";
}

std::string classifier_yaml(const std::string& more, const std::string& size = "8") {
  return "classifier:\n  image: {channels: 3, height: " + size + ", width: " + size +
         "}\n  network: {type: unet_encoder, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, heads: 2}\n  classes: 5\n" + more +
         "train:\n  data: " + data + "\n  batch: 8\n  steps: 8\n";
}

/// A folder with a model and a weaker one, one without classes, and classifiers, made once.
class Guided : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    const std::string classes = "{type: class_label, classes: 5, dropout: 0.2}", noise = "  noise: {schedule: cosine}\n";
    train("model", model_yaml(classes));
    train("weak", model_yaml(classes) + "compute: {precision: fp32}\n", "train.steps=2");
    train("plain", model_yaml("none"));
    train("judge", classifier_yaml(noise));
    train("clean", classifier_yaml(""));
    train("large", classifier_yaml(noise, "16"));
    for (const auto& [name, height, width] : {std::tuple{"image.png", 8, 8}, {"wide.png", 8, 16}}) {
      Image image(height, width, 3);
      for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = uint8_t(i * 37 % 251);
      write_png(path(name).string(), image);
    }
    Image mask(8, 8, 1);
    for (int64_t y = 0; y < 8; ++y)
      for (int64_t x = 4; x < 8; ++x) mask.row(y)[x] = 255;
    write_png(path("mask.png").string(), mask);
    write_png(path("small.png").string(), Image(4, 4, 1, 255));
  }
  static void TearDownTestSuite() { delete folder_; }

  static void train(const std::string& name, const std::string& yaml, const std::string& set = "train.seed=0") {
    folder_->file(name + ".yaml", yaml);
    const Finished done = at({"train", name + ".yaml", "--out", name, "--set", set});
    ASSERT_EQ(done.code, 0) << done.err;
  }
  static Finished at(std::vector<std::string> words) { return run_brume(std::move(words), {folder_->path()}); }
  static fs::path path(const std::string& name) { return folder_->path() / name; }
  /// Four images into the folder `out`, in float32.
  static std::vector<Image> sampled(std::vector<std::string> more, const std::string& model = "model", const std::string& out = "out") {
    std::vector<std::string> words{"sample", model + "/model.safetensors", "-n", "4", "-o", out};
    words.insert(words.end(), more.begin(), more.end());
    if (std::find(more.begin(), more.end(), "--precision") == more.end()) words.insert(words.end(), {"--precision", "fp32"});
    const Finished done = at(words);
    EXPECT_EQ(done.code, 0) << done.err;
    std::vector<Image> images;
    for (int i = 0; i < 4 && done.code == 0; ++i)
      images.push_back(read_image((path(out) / ("0000" + std::to_string(i) + ".png")).string()));
    return images;
  }
  static std::string said(std::vector<std::string> more, const std::string& model = "model") {
    std::vector<std::string> words{"sample", model + "/model.safetensors", "-n", "2", "-o", "no.png"};
    words.insert(words.end(), more.begin(), more.end());
    const Finished done = at(words);
    EXPECT_EQ(done.code, 2);
    return without(done.err, *folder_);
  }
  /// How far the columns from `from` to `to` are from the wanted ones.
  static int worst(const std::vector<Image>& images, const Image& wanted, int64_t from, int64_t to) {
    int worst = 0;
    for (const Image& i : images)
      for (int64_t y = 0; y < 8; ++y)
        for (int64_t x = 3 * from; x < 3 * to; ++x) worst = std::max(worst, std::abs(int(i.row(y)[x]) - int(wanted.row(y)[x])));
    return worst;
  }
  static TempFolder* folder_;
};
TempFolder* Guided::folder_ = nullptr;

TEST_F(Guided, ByAClassifier) {
  const auto plain = sampled({}), weak = sampled({"--classifier", "judge/model.safetensors", "--classifier-scale", "0"}),
             strong = sampled({"--classifier", "judge/model.safetensors", "--classifier-scale", "50"});
  EXPECT_EQ(plain, weak);
  EXPECT_NE(plain, strong);
  EXPECT_NE(sampled({"--classifier", "judge/model.safetensors"}), plain);
  EXPECT_EQ(sampled({"--classifier", "judge", "--classifier-scale", "50"}), strong) << "the directory of its training";
  EXPECT_EQ(sampled({"--classifier", "judge/model.safetensors", "--classifier-scale", "50", "--set", "sample.guidance=[clip]"}), strong);
  EXPECT_EQ(sampled({"--set", "sample.guidance=[{type: classifier, model: judge/model.safetensors, scale: 50}, clip]"}), strong);
  EXPECT_NE(sampled({"--sampler", "ddpm", "--set", "sample.guidance=[{type: classifier, model: judge/model.safetensors, form: mean}]"}),
            plain);
  EXPECT_EQ(read_png_text((path("out") / "00000.png").string()).count("brume"), 1u);
}

TEST_F(Guided, TheBatchChangesNothing) {
  for (const char* precision : {"fp32", "bf16"}) {
    std::vector<at::Tensor> all;
    for (const char* batch : {"1", "3", "4"}) {
      sampled({"--classifier", "judge/model.safetensors", "--classifier-scale", "20", "--precision", precision, "--batch", batch,
               "--trajectory", "b.safetensors"});
      all.push_back(*find(load_tensors(path("b.safetensors").string()), "x"));
    }
    EXPECT_TRUE(all[0].equal(all[2])) << precision;
    EXPECT_TRUE(all[1].equal(all[2])) << precision;
  }
}

TEST_F(Guided, AModelWithoutClassesTakesThoseOfTheClassifier) {
  const auto plain = sampled({}, "plain"),
             asked = sampled({"--classifier", "judge/model.safetensors", "--classifier-scale", "20", "--classes", "star,#2"}, "plain");
  EXPECT_NE(plain, asked);
  EXPECT_EQ(said({"--classes", "star"}, "plain"), "error: --classes: this model is not class-conditional\n");
  EXPECT_EQ(said({"--classifier", "judge/model.safetensors", "--classes", "7"}, "plain"),
            "error: --classes: class 7 is out of range: this model has 5 classes, 0 to 4\n");
}

TEST_F(Guided, ByAWeakerModel) {
  const auto plain = sampled({});
  const auto by = [&](const std::string& scale, const std::string& file) {
    return sampled({"--set", "sample.guidance=[{type: autoguidance, model: " + file + ", scale: " + scale + "}, clip]"});
  };
  EXPECT_EQ(by("1", "weak/model.safetensors"), plain);
  EXPECT_NE(by("3", "weak/model.safetensors"), plain);
  EXPECT_EQ(by("3", "../weak/model.safetensors"), by("3", "weak/model.safetensors"))
      << "in the folder of the checkpoint, then in the current one";
  EXPECT_EQ(by("3", "model.safetensors"), plain) << "itself, found in its folder";
}

TEST_F(Guided, PlainCfgPlusPlusAndRePaint) {
  EXPECT_NE(sampled({"--set", "sample.guidance=[{type: cfg_plus_plus, scale: 0.8}]"}), sampled({}));
  EXPECT_NE(sampled({"--sampler", "{type: repaint, jump_length: 2, resamples: 2}"}), sampled({"--sampler", "ddpm"}));
  EXPECT_EQ(sampled({"--sampler", "{type: repaint, resamples: 1}"}), sampled({"--sampler", "ddpm"}));
}

TEST_F(Guided, FromAnImage) {
  const Image image = read_image(path("image.png").string());
  const auto weak = sampled({"--image", "image.png", "--strength", "0.2", "--steps", "50", "--sampler", "ddim"}),
             whole = sampled({"--image", "image.png", "--strength", "1"});
  EXPECT_GT(worst(whole, image, 0, 8), worst(weak, image, 0, 8) / 2);
  EXPECT_NE(whole, sampled({})) << "it starts from the image, noised";
  ASSERT_EQ(at({"sample", "model/model.safetensors", "-n", "1", "-o", "i.png", "--image", "image.png", "--strength", "0.6", "--steps", "10",
                "--trajectory", "t.safetensors"})
                .code,
            0);
  const NamedTensors t = load_tensors(path("t.safetensors").string());
  EXPECT_EQ(find(t, "sigma")->numel(), 6) << "the last 6 of 10 steps";
  const auto text = read_png_text(path("i.png").string());
  EXPECT_EQ(text.at("brume"), "model/model.safetensors --seed 0 --steps 10 --count 1 --image image.png --strength 0.6");
}

TEST_F(Guided, UnderAMask) {
  const Image image = read_image(path("image.png").string());
  for (const char* sampler : {"ddim", "ddpm", "{type: repaint, jump_length: 2, resamples: 2}"}) {
    const auto made = sampled({"--image", "image.png", "--mask", "mask.png", "--sampler", sampler});
    EXPECT_LE(worst(made, image, 0, 4), 0) << sampler;
    EXPECT_GT(worst(made, image, 4, 8), 20) << sampler;
  }
  EXPECT_LE(worst(sampled({"--image", "image.png", "--mask", "mask.png", "--strength", "0.5", "--cfg", "3"}), image, 0, 4), 0);
}

TEST_F(Guided, ImagesThatDoNotFit) {
  EXPECT_EQ(said({"--image", "absent.png"}), "error: --image: there is no file 'absent.png'\n");
  EXPECT_EQ(said({"--image", "wide.png"}), "error: --image: wide.png is 8 pixels high and 16 wide, and the model makes 8 by 8\n");
  EXPECT_EQ(said({"--image", "image.png", "--mask", "small.png"}),
            "error: --mask: small.png is 4 pixels high and 4 wide, and the model makes 8 by 8\n");
  EXPECT_EQ(said({"--image", "image.png", "--mask", "absent.png"}), "error: --mask: there is no file 'absent.png'\n");
  EXPECT_EQ(said({"--mask", "mask.png"}), "error: --mask: there is no image it is laid over; --image names one\n");
  EXPECT_EQ(said({"--strength", "0.5"}), "error: --strength: there is no image to start from; --image names one\n");
  EXPECT_EQ(said({"--image", "image.png", "--strength", "0.01"}), "error: strength 0.01 of 5 steps leaves no step to run; at least 0.2\n");
  EXPECT_EQ(said({"--image", "image.png", "--strength", "0"}), "error: strength = 0 is outside (0, 1]\n");
  EXPECT_EQ(said({"--set", "sample.guidance=[inpaint]"}), "error: inpaint needs an image, and a mask of the part to generate\n");
}

TEST_F(Guided, ModelsThatDoNotFit) {
  EXPECT_EQ(said({"--classifier", "absent.safetensors"}), "error: --classifier: there is no file 'absent.safetensors'\n");
  EXPECT_EQ(said({"--classifier-scale", "2"}), "error: --classifier-scale: there is no classifier to guide by; --classifier names one\n");
  EXPECT_EQ(
      said({"--classifier", "clean/model.safetensors"}),
      "error: clean/model.safetensors: was trained on clean images; guidance needs a classifier that knows noise (classifier.noise)\n");
  EXPECT_EQ(said({"--classifier", "weak/model.safetensors"}), "error: weak/model.safetensors: is a diffusion model, not a classifier\n");
  EXPECT_EQ(said({"--classifier", "large/model.safetensors"}),
            "error: large/model.safetensors is for 3x16x16 images, and the model denoises 3x8x8\n");
  EXPECT_EQ(said({"--set", "sample.guidance=[{type: autoguidance, model: judge/model.safetensors}]"}),
            "error: judge/model.safetensors: is a classifier, not a diffusion model; `brume evaluate` is for it\n");
  EXPECT_EQ(said({"--set", "sample.guidance=[{type: autoguidance, model: no.safetensors}]"}),
            "error: there is no file 'no.safetensors', neither in 'model' nor in the current folder\n");
  EXPECT_EQ(said({"--cfg", "2"}, "plain"),
            "error: sample.guidance.0: cfg needs an unconditional estimate, and this model has no condition to leave out (conditioner: "
            "none)\n");
}

TEST_F(Guided, CheckFindsWhatTheConfigurationTells) {
  folder_->file("wrong.yaml",
                "model: {network: unet, conditioner: {type: class_label, dropout: 0}}\n"
                "sample: {guidance: [clip, {type: cfg, scale: 2}, classifier, autoguidance]}\n");
  EXPECT_EQ(at({"check", "wrong.yaml"}).err,
            "error: wrong.yaml:2:27: sample.guidance.1: cfg needs an unconditional estimate, and this model was trained without one "
            "(conditioner dropout: 0)\n"
            "error: wrong.yaml:2:50: sample.guidance.2: model: missing; the model.safetensors of a classifier trained on noisy images\n"
            "error: wrong.yaml:2:62: sample.guidance.3: model: missing; the model.safetensors of a weaker model\n");
}

TEST_F(Guided, TrainingShowsGuidedSamplesAndFindsTheirMistakesFirst) {
  folder_->file("guided.yaml", model_yaml("none"));
  const auto trained = [&](const std::string& guidance) {
    return at({"train", "guided.yaml", "--out", "guided", "--overwrite", "--set", "train.preview={count: 2, steps: 2}", "--set",
               "sample.guidance=" + guidance});
  };
  const Finished done = trained("[{type: classifier, model: judge/model.safetensors}, inpaint]");
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_TRUE(fs::exists(path("guided/samples/step_000008.png")));
  const Finished wrong = trained("[{type: classifier, model: no.safetensors}]");
  EXPECT_EQ(wrong.code, 2);
  EXPECT_EQ(wrong.err.find("error: there is no file 'no.safetensors'"), 0u) << wrong.err;
}

}  // namespace
}  // namespace brume::test
