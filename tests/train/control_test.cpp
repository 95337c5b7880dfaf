// A ControlNet that is trained on a model that stays as it is (model.control): laws of its beginning, of its file and of resuming.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "brume/model.h"
#include "brume/train/control_agreement.h"
#include "brume/train/trainer.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/process.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;

class TrainedControl : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    train(
        "model:\n  image: {height: 16, width: 16}\n"
        "  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, attention_resolutions: [8], heads: 2, "
        "zero_init: false}\n"
        "  conditioner: {type: class_label, classes: 5, dropout: 0.2}\n  parameterization: v\n"
        "sample: {steps: 2, guidance: [{type: cfg, scale: 3}]}\n" +
            section("", 3),
        "base");
    Tensor square = at::zeros({1, 3, 16, 16});
    square.narrow(2, 4, 8).narrow(3, 4, 8).fill_(1);
    write_safetensors(folder_->file("hint.safetensors"), {{"hint", square}});
    train(with("{}", 3), "control");
    train(with("{}", 1, "  groups: [{match: '*', lr: 0, weight_decay: 0}]\n"), "untrained");
  }
  static void TearDownTestSuite() { delete folder_; }

  static std::string section(const std::string& more, int64_t steps, const std::string& preview = "{count: 0}") {
    return fmt::format(
        "train:\n  data: {{type: shapes, label: form}}\n  optimizer: {{type: adamw, lr: 0.01}}\n  batch: 4\n  steps: {}\n"
        "  ema: {{decay: 0}}\n  preview: {}\n  log_every: 1\n{}compute: {{threads: 1, precision: fp32}}\n",
        steps, preview, more);
  }
  static std::string from_base() { return "  from: " + folder_->file("base/model.safetensors") + "\n"; }
  /// A training of a control with these options.
  static std::string with(const std::string& control, int64_t steps, const std::string& more = "",
                          const std::string& preview = "{count: 0}") {
    return fmt::format("model: {{control: {}}}\n{}", control, section(from_base() + more, steps, preview));
  }
  /// Trains into a folder; stops after `stop_at` steps if that is given.
  static void train(const std::string& yaml, const std::string& name, int64_t stop_at = -1, const std::string& resume = "") {
    const auto trainer = Trainer::from_yaml(yaml, {.directory = folder_->file(name), .resume = resume});
    trainer->run([&] { return trainer->step() == stop_at; });
  }
  static std::string said(const std::string& yaml) {
    try {
      train(yaml, "refused");
    } catch (const ConfigError& e) {
      return without(e.what(), *folder_);
    }
    return "";
  }
  static void expect_said(const std::string& yaml, const std::string& part) {
    const std::string text = said(yaml);
    EXPECT_NE(text.find(part), text.npos) << text;
  }
  /// The base's image, steered by the control of a run; not steered if `run` is empty.
  static Tensor image(const std::string& run, const std::string& numbers = "") {
    ImageRequest r{.count = 2, .seed = 7};
    if (!run.empty()) {
      r.controls = {folder_->file(run + "/control.safetensors") + numbers};
      r.control_images = {folder_->file("hint.safetensors")};
    }
    return Model::open(folder_->file("base/model.safetensors"), {.precision = "fp32"}).sample(r);
  }
  static std::string first_loss(const std::string& run) {
    std::ifstream in(folder_->file(run + "/metrics.jsonl"));
    std::string line;
    std::getline(in, line);
    return line.substr(0, line.find("grad_norm"));
  }
  static NamedTensors tensors(const std::string& file) { return load_tensors(folder_->file(file)); }
  inline static TempFolder* folder_ = nullptr;
};

TEST_F(TrainedControl, BeginsAsTheBase) {
  train(section(from_base(), 1), "plain");
  EXPECT_EQ(first_loss("control"), first_loss("plain"));
  EXPECT_NE(first_loss("plain").find("loss"), std::string::npos);
  EXPECT_TRUE(at::equal(image("untrained"), image(""))) << "zero convolutions add nothing";
}

TEST_F(TrainedControl, ItsFileSteersTheBase) {
  const Tensor plain = image("");
  EXPECT_FALSE(at::equal(image("control"), plain));
  EXPECT_TRUE(at::equal(image("control", ":0"), plain));
  const NamedTensors before = tensors("base/model.safetensors");
  for (const NamedTensor& t : tensors("control/model.safetensors")) EXPECT_TRUE(t.tensor.equal(*find(before, t.name))) << t.name;
  EXPECT_TRUE(Model::open(folder_->file("control/model.safetensors"), {.precision = "fp32"}).sample({.count = 2, .seed = 7}).equal(plain));
}

TEST_F(TrainedControl, BeginsAsACopyOfTheEncoder) {
  const NamedTensors base = tensors("base/model.safetensors");
  int64_t copied = 0;
  for (const NamedTensor& t : tensors("untrained/control.safetensors")) {
    const Tensor* own = find(base, "network." + t.name);
    copied += own != nullptr;
    EXPECT_TRUE(!own || t.tensor.equal(*own)) << t.name;
    const bool zero = t.name.starts_with("zero_convs.") || t.name.starts_with("middle_block_out.");
    EXPECT_TRUE(!zero || t.tensor.abs().sum().item<double>() == 0) << t.name;
  }
  EXPECT_GT(copied, 40);
  int64_t learned = 0;
  const NamedTensors first = tensors("untrained/control.safetensors");
  for (const NamedTensor& t : tensors("control/control.safetensors")) learned += !t.tensor.equal(*find(first, t.name));
  EXPECT_GT(learned, 40) << "encoder, hint and zero convolutions learn";
}

TEST_F(TrainedControl, ResumesBitForBitOnTheSameBaseAlone) {
  const std::string yaml = with("{image: blur, widths: [8]}", 4);
  train(yaml, "through");
  train(yaml, "halves", 2);
  train(yaml, "halves", -1, folder_->file("halves/training.safetensors"));
  for (const char* file : {"training", "control"}) {
    const NamedTensors one = tensors(fmt::format("through/{}.safetensors", file)),
                       two = tensors(fmt::format("halves/{}.safetensors", file));
    ASSERT_EQ(one.size(), two.size());
    for (const NamedTensor& t : one) EXPECT_TRUE(t.tensor.equal(*find(two, t.name))) << t.name;
  }
  train(section(from_base(), 1), "moved");
  std::string other = yaml;
  other.replace(other.find(folder_->file("base/")), folder_->file("base/").size(), folder_->file("moved/"));
  try {
    train(other, "halves", -1, folder_->file("halves/training.safetensors"));
    FAIL() << "another base was taken";
  } catch (const ConfigError& e) {
    EXPECT_NE(std::string(e.what()).find("the control of this training is of a base with"), std::string::npos) << e.what();
  }
}

TEST_F(TrainedControl, SampleGridsAreSteered) {
  train(with("{}", 2, "", "{every: 1, count: 3, steps: 2}"), "shown");
  for (const char* file : {"control.png", "step_000001.png", "step_000002.png"})
    EXPECT_TRUE(fs::exists(folder_->file("shown/samples/") + file));
  train(section(from_base(), 1, "{every: 1, count: 3, steps: 2}"), "base_shown");
  EXPECT_NE(read_text(folder_->file("shown/samples/step_000002.png")), read_text(folder_->file("shown/samples/step_000001.png")));
}

TEST_F(TrainedControl, Mistakes) {
  expect_said(
      "model: {image: {height: 8, width: 8}, control: {}, network: {type: unet, channels: 8, multipliers: [1], blocks: 1, groups: "
      "4}}\n" +
          section("", 1),
      "model.control: needs train.from");
  expect_said(with("{image: cany}", 1), "did you mean 'canny'?");
  expect_said(with("{widths: [8, 16]}", 1), "model.control: widths: 2 layers halve images 1 times");
  expect_said(with("{}", 1, "  adapters: [{type: lora}]\n"), "train.adapters: cannot stand with model.control");
  expect_said(with("{}", 1, "  freeze: ['*']\n"), "train.freeze: cannot stand with model.control");
}

TEST(ControlAgreement, IsTheOverlapOfEdges) {
  const Tensor half = at::full({1, 3, 16, 16}, -1.0);
  half.narrow(3, 8, 8).fill_(1);  // an edge from top to bottom
  ControlAgreement same("canny"), none("canny"), grey("grey");
  Tensor edges = at::zeros({1, 3, 16, 16});
  same.add(at::full({2, 3, 16, 16}, -1.0), at::zeros({2, 3, 16, 16}));
  EXPECT_EQ(same.overlap(), 1) << "nothing was asked for, nothing is there";
  EXPECT_EQ(same.error(), 0);
  EXPECT_EQ(same.images(), 2);
  none.add(half, edges);
  EXPECT_EQ(none.overlap(), 0);
  EXPECT_GT(none.error(), 0);
  grey.add(half, half.clamp_min(0));
  EXPECT_EQ(grey.error(), 0);
  EXPECT_TRUE(std::isnan(grey.overlap())) << "grey draws no lines";
}

TEST_F(TrainedControl, IsMeasuredByTheProgram) {
  if (!fs::exists(fs::path(BRUME_BINARY_DIR) / "brume")) GTEST_SKIP() << "the program is not built";
  const auto evaluated = [&](const std::string& run) {
    const std::string json = folder_->file(run + ".json");
    const Finished done = run_brume({"evaluate", folder_->file("base/model.safetensors"), "--control",
                                     folder_->file(run + "/control.safetensors"), "--control-image", "canny", "--data",
                                     "{type: shapes, label: form}", "-n", "5", "--batch", "2", "--precision", "fp32", "--json", json});
    EXPECT_EQ(done.code, 0) << done.err;
    return nlohmann::json::parse(read_text(json))["sets"];
  };
  const auto untrained = evaluated("untrained"), trained = evaluated("control");
  ASSERT_EQ(untrained.size(), 2u);
  EXPECT_EQ(untrained[0]["iou"], untrained[1]["iou"]) << "with and without";
  EXPECT_EQ(untrained[0]["error"], untrained[1]["error"]);
  EXPECT_EQ(untrained[0]["images"], 5);
  EXPECT_EQ(trained[1], untrained[1]);
  EXPECT_NE(trained[0]["error"], trained[1]["error"]);
  const Finished file =
      run_brume({"evaluate", folder_->file("base/model.safetensors"), "--control", folder_->file("control/control.safetensors"),
                 "--control-image", folder_->file("hint.safetensors"), "--data", "{type: shapes, label: form}"});
  EXPECT_NE(file.err.find("--control-image: evaluate makes hints of the images of --data, by canny, blur, grey, tile, lines"),
            std::string::npos)
      << file.err;
}

}  // namespace
}  // namespace brume::test
