// Classes of two origins are compared by name: of a model, its data, a classifier, a resumed training, a source.
#include "brume/diffusion/class_names.h"

#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "brume/config/yaml.h"
#include "brume/core/dataset.h"
#include "brume/core/names_classes.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/model_files.h"
#include "brume/image/image.h"
#include "brume/request.h"
#include "brume/train/learner.h"
#include "brume/train/source.h"
#include "brume/train/trainer.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace fs = std::filesystem;
namespace {

using Numbers = std::vector<int64_t>;

TEST(ClassNames, AreComparedByName) {
  const auto numbers = [](std::vector<std::string> from, std::vector<std::string> to) {
    return class_numbers({std::move(from), "data"}, {std::move(to), "model"});
  };
  EXPECT_EQ(numbers({"green", "red"}, {"red", "green"}), (Numbers{1, 0}));
  EXPECT_EQ(numbers({"c", "a", "b"}, {"a", "b", "c"}), (Numbers{2, 0, 1}));
  EXPECT_EQ(numbers({"a", "b"}, {"a", "b"}), Numbers());
  EXPECT_EQ(numbers({"0", "1"}, {"red", "green"}), Numbers()) << "numbers are no names";
  EXPECT_EQ(numbers({"red", "green"}, {}), Numbers());
  EXPECT_EQ(numbers({"dog", "eel"}, {"cat", "dog", "eel"}), (Numbers{1, 2})) << "a part of the classes";
  EXPECT_EQ(numbers({"cat", "dog"}, {"cat", "dog", "eel"}), (Numbers{0, 1}));
  EXPECT_EQ(numbers({"caf\u00e9", "bar"}, {"bar", "cafe\u0301"}), (Numbers{1, 0})) << "composed and decomposed";
  EXPECT_EQ(numbers({"0", "1", "10"}, {"0", "10", "1"}), (Numbers{0, 2, 1}));
  EXPECT_EQ(error_of([&] {
              numbers({"ant", "cat"}, {"cat", "dog"});
            }),
            "the names of the classes differ: data has [ant, cat], and model has [cat, dog]");
  EXPECT_EQ(error_of([&] {
              numbers({"1", "2"}, {"one", "two"});
            }),
            "the names of the classes differ: data has [1, 2], and model has [one, two]");
  EXPECT_EQ(error_of([&] { numbers({"a", "b"}, {"a", "a"}); }), "the names of the classes differ: data has [a, b], and model has [a, a]");
  EXPECT_EQ(error_of([&] { numbers({"a", "a"}, {"a", "b"}); }), "the names of the classes differ: data has [a, a], and model has [a, b]");
  EXPECT_EQ(error_of([&] {
              numbers({"ant", "cat", "dog"}, {"cat", "dog"});
            }),
            "the names of the classes differ: data has [ant, cat, dog], and model has [cat, dog]");
}

TEST(ClassNames, AListOfThemHasOneMeaning) {
  const auto labels = [](const std::vector<std::string>& asked, const std::vector<std::string>& classes) {
    Numbers all;
    for (const Annotation& a : annotations_of({.classes = asked}, {int64_t(classes.size()), false, false}, classes)) all.push_back(a.label);
    return all;
  };
  const std::vector<std::string> numbers{"1", "2", "3"}, words{"cat", "dog", "owl"}, plain{"0", "1", "2"};
  EXPECT_EQ(labels({"1", "2", "3"}, numbers), (Numbers{0, 1, 2}));
  EXPECT_EQ(labels({"#0", "#1", "#2"}, numbers), (Numbers{0, 1, 2}));
  EXPECT_EQ(labels({"#2", "3"}, numbers), (Numbers{2, 2}));
  EXPECT_EQ(labels({"owl", "cat"}, words), (Numbers{2, 0}));
  EXPECT_EQ(labels({"caf\u00e9", "na\u0308ive"}, {"cafe\u0301", "n\u00e4ive"}), (Numbers{0, 1})) << "composed and decomposed";
  EXPECT_EQ(labels({"0", "2"}, words), (Numbers{0, 2}));
  EXPECT_EQ(labels({"0", "2"}, plain), (Numbers{0, 2}));
  EXPECT_EQ(labels({"#1", "dog"}, words), (Numbers{1, 1}));
  EXPECT_EQ(error_of([&] {
              labels({"0", "1", "2"}, numbers);
            }),
            "classes: '2' is the name of a class and '0' is none; a list has names or numbers, and '#0' is number 0 whatever its name is");
  EXPECT_EQ(
      error_of([&] {
        labels({"cat", "1"}, words);
      }),
      "classes: 'cat' is the name of a class and '1' is none; a list has names or numbers, and '#1' is number 1 whatever its name is");
  EXPECT_EQ(error_of([&] { labels({"#3"}, words); }), "classes: class 3 is out of range: this model has 3 classes, 0 to 2");
  EXPECT_EQ(error_of([&] { labels({"#x"}, words); }), "classes: no class '#x'; known: cat, dog, owl");
}

/// A classifier that gives class 0 of its own the probability 1.
class First final : public NoisyClassifier {
 public:
  Tensor log_probability(const Tensor&, double, const Tensor& classes) const override { return -classes.to(at::kFloat); }
  const std::vector<std::string>& classes() const override { return names_; }
  ImageShape shape() const override { return {}; }

 private:
  std::vector<std::string> names_{"red", "green"};
};

class Named final : public Denoiser, public NamesClasses {
 public:
  Estimate denoise(const Tensor& x, double, const Condition&) const override { return {x, {}, {}}; }
  std::vector<std::string> class_names() const override { return {"red", "green"}; }
};

/// Has that classifier, and a model with the same classes.
class Others final : public ModelSource {
 public:
  OtherModel model(const std::string&) const override {
    OtherModel other;
    other.denoiser = std::make_shared<Named>();
    return other;
  }
  std::shared_ptr<const NoisyClassifier> classifier(const std::string&) const override { return std::make_shared<First>(); }
};

TEST(ClassNames, OfGuidesAndTeachers) {
  const Others others;
  const SameClasses same(others, {{"green", "red"}, "the model"});
  const auto classifier = same.classifier("c");
  EXPECT_EQ(classifier->classes(), (std::vector<std::string>{"green", "red"}));
  const Tensor p = classifier->log_probability({}, 0, at::tensor(Numbers{0, 1}));
  EXPECT_EQ(p[0].item<float>(), -1) << "green is the second there";
  EXPECT_EQ(p[1].item<float>(), 0);
  EXPECT_EQ(error_of([&] { same.model("t"); }), "the classes have another order: t has [red, green], and the model has [green, red]");
  EXPECT_NO_THROW(SameClasses(others, {{"red", "green"}, "the model"}).model("t"));
  EXPECT_NO_THROW(SameClasses(others, {{}, "the model"}).model("t"));
  EXPECT_THROW(SameClasses(others, {{"green", "blue"}, "the model"}).classifier("c"), ConfigError);
}

/// Folders of images of one grey each, by name.
std::string folders(const TempFolder& folder, const std::string& name, const std::vector<std::pair<std::string, uint8_t>>& classes) {
  for (const auto& [word, grey] : classes) {
    fs::create_directories(folder.path() / name / word);
    for (const char* file : {"a.png", "b.png"}) write_png(folder.file(fmt::format("{}/{}/{}", name, word, file)), Image(8, 8, 1, grey));
  }
  return (folder.path() / name).string();
}

struct Read {
  Registry registry = builtins();
  Value resolved;
  Config config;
  explicit Read(const std::string& yaml) { config = read_training(registry, parse_yaml(yaml, "x.yaml"), "", &resolved); }
};

std::string yaml(const std::string& data, const std::string& names, const std::string& from = "", int64_t steps = 2) {
  return fmt::format(
      "model:\n  image: {{channels: 1, height: 8, width: 8}}\n"
      "  network: {{type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, attention_resolutions: []}}\n"
      "  conditioner: {{type: class_label, classes: 2, dropout: 0.2}}\n{}"
      "train:\n  {}\n  data: {{type: image_folder, path: '{}'}}\n  batch: 2\n  steps: {}\n  preview: {{count: 0}}\n"
      "compute: {{precision: fp32, threads: 1}}\n",
      names.empty() ? "" : fmt::format("  class_names: {}\n", names), from.empty() ? "seed: 1" : "from: " + from, data, steps);
}

void run(const Read& read, const std::string& folder, const std::string& resume = "") {
  const ModelFiles models(read.registry, resolve_compute(read.config.compute), "");
  Trainer trainer(read.config, read.resolved, folder, resume, models);
  trainer.run([&] { return trainer.step() == 1; });
}

/// The labels of the training images in their order.
Numbers labels(Read read, const Value& stored = Value()) {
  const auto data = labelled(read.config, read.resolved, read.config.train->data.make({read.config.image()}), stored);
  Numbers all;
  std::vector<float> pixels(64);
  for (int64_t i = 0; i < data->size(); ++i) all.push_back(data->read(i, 0, pixels).label);
  return all;
}

TEST(ClassNames, OfAConfigurationOverFolders) {
  const TempFolder folder;
  const std::string data = folders(folder, "colours", {{"green", 10}, {"red", 200}});
  EXPECT_EQ(labels(Read(yaml(data, ""))), (Numbers{0, 0, 1, 1}));
  EXPECT_EQ(labels(Read(yaml(data, "[red, green]"))), (Numbers{1, 1, 0, 0})) << "green is the second";
  EXPECT_EQ(without(error_of([&] { labels(Read(yaml(data, "[red, blue]"))); }), folder),
            "the names of the classes differ: train.data has [green, red], and model.class_names has [red, blue]");
}

TEST(ClassNames, OfTrainingsThatGoOn) {
  const TempFolder folder;
  const std::string first = folders(folder, "first", {{"cat", 10}, {"dog", 200}}),
                    other = folders(folder, "other", {{"ant", 10}, {"cat", 200}});
  run(Read(yaml(first, "")), folder.file("run"));
  const std::string file = folder.file("run/training.safetensors"), model = folder.file("run/model.safetensors");
  const std::string refusal = "the names of the classes differ: train.data has [ant, cat], and model.class_names has [cat, dog]";
  EXPECT_EQ(error_of([&] { run(Read(yaml(other, "")), folder.file("run"), file); }), refusal) << "left to the data";
  EXPECT_NO_THROW(run(Read(yaml(first, "")), folder.file("run"), file));
  EXPECT_EQ(error_of([&] { run(Read(yaml(other, "", model)), folder.file("next")); }), refusal);
  run(Read(yaml(folders(folder, "same", {{"dog", 1}, {"cat", 2}}), "", model)), folder.file("next"));
  EXPECT_EQ(read_card(folder.file("next/model.safetensors")).model.find("class_names")->items[0].scalar, "cat");
}

}  // namespace
}  // namespace brume::test
