// Models in int8: opened so on the fly, measured and written with some layers in float32, read again; what is refused.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/pipeline.h"
#include "brume/diffusion/quantization.h"
#include "brume/model.h"
#include "brume/train/trainer.h"
#include "brume/weights/int8_tensors.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

using at::Tensor;

const char* const small =
    "model:\n  image: {height: 8, width: 8}\n"
    "  network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, groups: 4, attention_resolutions: [4], heads: 2}\n"
    "  conditioner: {type: class_label, classes: 5, dropout: 0.2}\n  parameterization: v\n"
    "train: {data: shapes, batch: 4, steps: 8, preview: {count: 0}}\nsample: {steps: 4}\ncompute: {threads: 1, precision: fp32}\n";

template <class F>
std::string error_of(const F& run) {
  try {
    run();
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

class Quantizing : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    ASSERT_TRUE(Trainer::from_yaml(small, {.directory = folder_->file("m")})->run(TrainCallbacks{}));
    model_ = folder_->file("m/model.safetensors");
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }
  static Model open(const std::string& path, const std::string& precision = "") {
    warnings_.clear();
    return Model::open(path, {.precision = precision, .warn = [](const std::string& text) { warnings_.push_back(text); }});
  }
  static Tensor images(const Model& model, int64_t batch = 0) {
    ImageRequest request{.classes = {"star", "#1", "#3"}, .count = 3, .seed = 7, .cfg = 2};
    if (batch > 0) request.batch = batch;
    return model.sample(request);
  }
  static double difference(const Tensor& a, const Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }
  /// The model, measured on noise and written.
  static Quantization written(const std::string& name, double limit) {
    const Model model = open(model_, "int8");
    const Quantization q = quantize(model.pipeline(), {.count = 8, .limit = limit});
    ModelCard card = read_card(model_);
    card.files = model.pipeline().files();
    card.int8 = q.section("noise");
    save_model(folder_->file(name), quantized_weights(model.pipeline(), q), card);
    return q;
  }

  inline static TempFolder* folder_ = nullptr;
  inline static std::string model_;
  inline static std::vector<std::string> warnings_;
};

TEST_F(Quantizing, AnyModelOpensInInt8WithAWord) {
  const Tensor exact = images(open(model_, "fp32"));
  EXPECT_TRUE(warnings_.empty());
  const Tensor rounded = images(open(model_, "int8"));
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_EQ(warnings_.front(), model_ +
                                   ": was not measured in int8, so all its layers but the first and the last ones compute in it; "
                                   "`brume quantize` keeps those that lose most in float32");
  EXPECT_GT(difference(rounded, exact), 1e-4) << "it does not compute in int8";
  EXPECT_LT(difference(rounded, exact), 0.2);
}

TEST_F(Quantizing, ImagesDoNotDependOnTheBatch) {
  const Model model = open(model_, "int8");
  EXPECT_TRUE(images(model, 3).equal(images(model, 1)));
}

TEST_F(Quantizing, AFileGivesTheSameImagesAsTheModelItWasMadeOf) {
  const Quantization q = written("all.safetensors", 1);
  const Tensor before = images(open(model_, "int8"));
  const Model read = open(folder_->file("all.safetensors"));
  EXPECT_TRUE(warnings_.empty());
  EXPECT_TRUE(read.pipeline().compute().int8) << "the file says so";
  EXPECT_TRUE(images(read).equal(before));
  EXPECT_EQ(q.error, q.first_error);
  EXPECT_GT(q.error, 1e-4);
  EXPECT_LT(q.error, 0.06);
}

TEST_F(Quantizing, AFileSaysWhatItHolds) {
  const Quantization q = written("said.safetensors", 1);
  const std::string path = folder_->file("said.safetensors");
  std::map<std::string, std::string> entries;
  load_tensors(path, &entries);
  EXPECT_NE(entries.at("brume.int8").find("data: noise"), std::string::npos) << entries.at("brume.int8");
  const Int8Tensors file = int8_in(path, open_stored(path).tensors);
  EXPECT_EQ(file.weights.size(), q.layers.size());
  EXPECT_FALSE(file.weights.contains("network.input_blocks.0.0.weight")) << "the first layer";
  EXPECT_FALSE(file.weights.contains("network.time_embed.0.weight")) << "one row per image";
  EXPECT_LT(std::filesystem::file_size(path), std::filesystem::file_size(model_) / 2);
}

TEST_F(Quantizing, OtherPrecisionsComputeWithTheNumbersOfTheFile) {
  written("numbers.safetensors", 1);
  const std::string path = folder_->file("numbers.safetensors");
  const Tensor exact = images(open(model_, "fp32")), rounded = images(open(path, "fp32"));
  EXPECT_GT(difference(rounded, exact), 1e-4);
  EXPECT_LT(difference(rounded, exact), 0.2);
  for (const NamedTensor& t : open_any(path).tensors) EXPECT_TRUE(t.tensor.is_floating_point() || t.tensor.dim() < 2) << t.name;
}

TEST_F(Quantizing, TheWorstLayersStayInFloat32) {
  const Quantization q = written("kept.safetensors", 0);
  const auto kept = size_t(std::count_if(q.layers.begin(), q.layers.end(), [](const auto& l) { return l.kept; }));
  EXPECT_EQ(kept, q.layers.size() / 2);
  for (size_t i = 0; i < q.layers.size(); ++i) EXPECT_EQ(q.layers[i].kept, i < kept) << i;
  EXPECT_TRUE(std::is_sorted(q.layers.begin(), q.layers.end(), [](const auto& a, const auto& b) { return a.error > b.error; }));
  EXPECT_LT(q.error, q.first_error);
  const std::string path = folder_->file("kept.safetensors");
  const Int8Tensors file = int8_in(path, open_stored(path).tensors);
  for (const QuantizedLayer& l : q.layers) EXPECT_EQ(file.weights.contains(l.name), !l.kept) << l.name;
  const Tensor exact = images(open(model_, "fp32"));
  EXPECT_LT(difference(images(open(path)), exact), difference(images(open(model_, "int8")), exact));
}

TEST_F(Quantizing, DamagedScalesAreRefused) {
  written("whole.safetensors", 1);
  const StoredModel whole = open_stored(folder_->file("whole.safetensors"));
  const std::string scales = whole.tensors.empty() ? "" : int8_in("", whole.tensors).weights.begin()->first + ".int8_scale";
  const std::string name = scales.substr(0, scales.size() - 11);
  const auto refused = [&](const std::function<void(NamedTensors&)>& change) {
    NamedTensors tensors = whole.tensors;
    change(tensors);
    return error_of([&] { int8_in("f", tensors); });
  };
  const auto find = [](NamedTensors& all, const std::string& of) {
    return std::find_if(all.begin(), all.end(), [&](const NamedTensor& t) { return t.name == of; });
  };
  EXPECT_NE(refused([&](NamedTensors& t) { t.erase(find(t, name)); }).find("has scales of a tensor that is not there"), std::string::npos);
  EXPECT_NE(refused([&](NamedTensors& t) { find(t, scales)->tensor = at::ones({3}); }).find("one for each output channel of '" + name),
            std::string::npos);
  EXPECT_NE(refused([&](NamedTensors& t) { find(t, name)->tensor = at::ones({3, 3}); }).find("no weight of int8"), std::string::npos);
  const std::string lost = folder_->file("lost.safetensors");
  NamedTensors tensors = whole.tensors;
  tensors.erase(find(tensors, scales));
  std::map<std::string, std::string> metadata;
  load_tensors(folder_->file("whole.safetensors"), &metadata);
  write_safetensors(lost, tensors, metadata);
  EXPECT_NE(error_of([&] { open(lost); }).find(name), std::string::npos);
}

TEST_F(Quantizing, TrainingIsRefused) {
  std::string yaml = small;
  yaml.replace(yaml.find("precision: fp32"), 15, "precision: int8");
  const std::string text = error_of([&] { Trainer::from_yaml(yaml, {.directory = folder_->file("never")}); });
  EXPECT_EQ(text, "configuration:8:34: compute.precision: int8 is for evaluation; training computes in fp32 or bf16");
}

TEST_F(Quantizing, AFileCanBeTrainedFrom) {
  written("start.safetensors", 1);
  std::string yaml = small;
  yaml.insert(yaml.find("train: {") + 8, "from: " + std::string(folder_->file("start.safetensors")) + ", ");
  EXPECT_TRUE(Trainer::from_yaml(yaml, {.directory = folder_->file("more")})->run(TrainCallbacks{}));
}

}  // namespace
}  // namespace brume::test
