// Trainings that start from another model, and weights that stay as they are.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "brume/config/yaml.h"
#include "brume/core/seed.h"
#include "brume/diffusion/pipeline.h"
#include "brume/train/resuming.h"
#include "brume/train/source.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/refs.h"
#include "train/autoencoder_support.h"

namespace brume::test {
namespace fs = std::filesystem;
namespace {

constexpr const char* model_section =
    "model:\n"
    "  image: {channels: 1, height: 8, width: 8}\n"
    "  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, attention_resolutions: []}\n"
    "  conditioner: {type: class_label, classes: 5, dropout: 0.2}\n"
    "  noise: cosine\n  parameterization: v\n"
    "sample: {steps: 7}\n";

/// `train`: further keys of the section.
std::string training(const std::string& train, int64_t steps, int64_t seed = 0) {
  return fmt::format(
      "train:\n{}  data: shapes\n  optimizer: {{type: adamw, lr: 0.01}}\n  batch: 4\n  steps: {}\n  seed: {}\n  ema: {{decay: 0.9}}\n"
      "  preview: {{count: 0}}\n  log_every: 1\ncompute: {{precision: fp32, threads: 1}}\n",
      train, steps, seed);
}

/// A configuration as `brume train` reads it.
struct Read {
  Registry registry = builtins();
  Value resolved;
  Config config;
  explicit Read(const std::string& yaml, const fs::path& folder = "") {
    config = read_training(registry, parse_yaml(yaml, "x.yaml"), folder, &resolved);
  }
};

/// Trains and stops after `stop_at` steps if that is given; resumes from `resume`.
void run(const Read& read, const std::string& folder, int64_t stop_at = -1, const std::string& resume = "") {
  const ModelFiles models(read.registry, resolve_compute(read.config.compute), "");
  Trainer trainer(read.config, read.resolved, folder, resume, models);
  trainer.run([&] { return trainer.step() == stop_at; });
}

/// One trained model of each kind, for all tests.
class FromSource : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    run(Read(model_section + training("", 3, 5)), folder_->file("model"));
    run(Read(tiny_classifier(2)), folder_->file("classifier"));
    run(Read(tiny_autoencoder(2)), folder_->file("autoencoder"));
  }
  static void TearDownTestSuite() { delete folder_; }
  static std::string file(const std::string& name) { return folder_->file(name + "/model.safetensors"); }
  static std::string from(const std::string& name, const std::string& freeze = "") {
    return "  from: " + file(name) + "\n" + (freeze.empty() ? "" : "  freeze: " + freeze + "\n");
  }
  static std::string said(const std::string& yaml) {
    return without(error_of([&] { Read(yaml, ""); }), *folder_);
  }
  static TempFolder* folder_;
};
TempFolder* FromSource::folder_ = nullptr;

/// The rest of a configuration: all after the section of the model.
std::string after_model(const std::string& yaml) { return yaml.substr(yaml.find("train:\n")); }

TEST_F(FromSource, EveryKindStartsWithTheWeightsOfTheSource) {
  const std::string kinds[][2] = {
      {"model", training(from("model"), 1)},
      {"classifier", after_model(tiny_classifier(1, "", from("classifier")))},
      {"autoencoder", after_model(tiny_autoencoder(1, "", from("autoencoder")))},
  };
  for (const auto& [name, yaml] : kinds) {
    const Read read(yaml);
    const Trainer trainer(read.config, read.resolved, folder_->file("start_" + name));
    const NamedTensors source = load_tensors(file(name));
    ASSERT_EQ(trainer.weights().size(), source.size()) << name;
    for (const Weight& w : trainer.weights()) {
      EXPECT_TRUE(w.tensor.equal(*find(source, w.name))) << w.name;
    }
    for (const Weight& w : trainer.ema().shadow()) EXPECT_TRUE(w.tensor.equal(*find(source, w.name))) << w.name;
  }
}

TEST_F(FromSource, TheFirstLossIsTheSources) {
  const Read read(training(from("model"), 1, 11));
  run(read, folder_->file("loss"));
  const double first = metrics_of(folder_->file("loss")).front()["loss"];

  Pipeline source(read.config.model, Compute{});
  load_weights(file("model"), source.weights());
  for (const Weight& w : source.weights()) Tensor(w.tensor).set_requires_grad(w.trainable);  // as training computes
  const TrainOptions& t = *read.config.train;
  Loader loader(t.data.make({read.config.image()}), read.config.image(), t.batch, mix_seed(11, 21), 0);
  const Batch batch = loader.next();
  at::Generator random = at::detail::createCPUGenerator(mix_seed(11, 22, 0));
  brume::Training state{0, 1, {}, &no_models()};
  EXPECT_EQ(first, source.loss(*t.objective, {batch.images, batch.annotations}, state, random).item<double>());

  run(Read(model_section + training("", 1, 11)), folder_->file("fresh"));
  EXPECT_NE(first, double(metrics_of(folder_->file("fresh")).front()["loss"]));
}

TEST_F(FromSource, TheSectionsThatAreLeftOutAreTheSources) {
  const Read read(training(from("model"), 1)), given(model_section + training(from("model"), 1));
  EXPECT_EQ(read.config.sample.steps, 7);
  EXPECT_EQ(read.resolved.find("model")->find("class_names")->items.size(), 5u);
  EXPECT_EQ(dump_yaml(*given.resolved.find("model")->find("network")), dump_yaml(*read.resolved.find("model")->find("network")));
  EXPECT_EQ(given.config.model.class_names.size(), 0u) << "left to the data";
}

TEST_F(FromSource, ADirectoryOfATrainingIsItsModel) {
  const std::string yaml = "train: {from: model, data: shapes, steps: 1}\n";
  EXPECT_EQ(Read(yaml, folder_->path()).config.train->from, file("model"));
}

TEST_F(FromSource, FrozenWeightsKeepTheirBitsAndHaveNoOptimizer) {
  const std::string yaml = training(from("model", "['network.*', '!network.out.*']"), 6);
  const std::string whole = folder_->file("frozen"), halves = folder_->file("frozen_halves");
  run(Read(yaml), whole);
  const NamedTensors source = load_tensors(file("model")), model = load_tensors(whole + "/model.safetensors"),
                     state = load_tensors(whole + "/training.safetensors");
  int64_t frozen = 0, learned = 0;
  for (const NamedTensor& t : source) {
    const bool learns = t.name.starts_with("network.out.");
    (learns ? learned : frozen) += 1;
    EXPECT_EQ(find(model, t.name)->equal(t.tensor), !learns) << t.name;
    EXPECT_EQ(find(state, "weights." + t.name)->equal(t.tensor), !learns) << t.name;
    EXPECT_EQ(find(state, "optimizer.m." + t.name) != nullptr, learns) << t.name;
  }
  EXPECT_GT(frozen, 0);
  EXPECT_GT(learned, 0);

  run(Read(yaml), halves, 4);
  run(Read(yaml), halves, -1, halves + "/training.safetensors");
  for (const char* name : {"/model.safetensors", "/training.safetensors"}) {
    const NamedTensors a = load_tensors(whole + name), b = load_tensors(halves + name);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].name == b[i].name && a[i].tensor.equal(b[i].tensor)) << a[i].name;
  }
}

TEST_F(FromSource, ResumingNeedsTheSourceNoMore) {
  const std::string run_folder = folder_->file("orphan");
  fs::copy_file(file("model"), folder_->file("gone.safetensors"));
  run(Read(training("  from: " + folder_->file("gone.safetensors") + "\n", 6)), run_folder, 4);
  fs::remove(folder_->file("gone.safetensors"));
  Registry registry = builtins();
  Value resolved;
  const std::string state = run_folder + "/training.safetensors";
  const Config config = read_stored_configuration(registry, training_configuration(state), state, {}, &resolved);
  Trainer trainer(config, resolved, run_folder, state);
  EXPECT_EQ(trainer.step(), 4);
  EXPECT_TRUE(trainer.run(nullptr));
}

TEST_F(FromSource, AFrozenCodebookDoesNotMove) {
  const std::string vq =
      "autoencoder:\n  image: {channels: 1, height: 16, width: 16}\n  network: {type: vq, channels: 8, multipliers: [1, 2], "
      "blocks: 1, groups: 4, latent_channels: 2, codes: 8, codebook: ema, decay: 0.5}\n";
  const std::string rest = after_model(tiny_autoencoder(3)), head = "train:\n";
  run(Read(vq + rest), folder_->file("vq"));
  const auto moved = [&](const std::string& name, const std::string& freeze) {
    run(Read(head + from("vq", freeze) + rest.substr(head.size())), folder_->file(name));
    const NamedTensors before = load_tensors(file("vq")), after = load_tensors(file(name));
    return !find(before, "autoencoder.quantize.embedding.weight")->equal(*find(after, "autoencoder.quantize.embedding.weight"));
  };
  EXPECT_TRUE(moved("vq_learns", ""));
  EXPECT_FALSE(moved("vq_frozen", "['*.embedding.*']"));
}

TEST_F(FromSource, AnotherModelIsRefusedKeyByKey) {
  std::string other = model_section + training(from("model"), 1);
  other.replace(other.find("channels: 8"), 11, "channels: 16");
  other.replace(other.find("cosine"), 6, "linear");
  const std::string where = ", which train.from names; ";
  const std::string refusal = said(other),
                    tensors =
                        "\nmodel/model.safetensors: tensor 'network.time_embed.0.weight' has shape [32, 8], the model's has [64, 16]; ";
  EXPECT_EQ(refusal.substr(0, refusal.find(tensors)),
            "x.yaml:3:35: model.network.channels: is 16 here and 8 in 'model/model.safetensors'" + where +
                "a configuration without 'model' takes its own" +
                "\nx.yaml:5:10: model.noise.type: is linear here and cosine in 'model/model.safetensors'" + where +
                "train.adopt: {head: new} lets it differ");
  EXPECT_NE(refusal.find(tensors), std::string::npos) << refusal;
  EXPECT_TRUE(refusal.ends_with("more tensors do not fit; train.adopt: {} names all of them")) << refusal;
  EXPECT_EQ(said(model_section + training(from("classifier"), 1)),
            "x.yaml:9:9: train.from: classifier/model.safetensors: holds a 'classifier', and the configuration has a 'model'");
  EXPECT_EQ(said(training("  from: absent.safetensors\n", 1)), "x.yaml:2:9: train.from: there is no file 'absent.safetensors'");
}

TEST_F(FromSource, TheMeasuredScaleOfAFirstStageMayDiffer) {
  EXPECT_NE(
      Read(after_model(tiny_autoencoder(1, "", from("autoencoder")))).resolved.find("autoencoder")->find("network")->find("scale")->scalar,
      "1");
  EXPECT_EQ(said(tiny_autoencoder(1, "", from("autoencoder"))), "no error");
}

TEST_F(FromSource, PatternsThatMatchNothing) {
  EXPECT_EQ(said(training(from("model", "['netwrok.*', network.otu.0.weight]"), 1)),
            "x.yaml:3:12: train.freeze.0: 'netwrok.*' matches no weight; did you mean 'network.*'?\n"
            "x.yaml:3:25: train.freeze.1: 'network.otu.0.weight' matches no weight; did you mean 'network.out.0.weight'?");
  const Read read(model_section + training("  freeze: ['zzzzzzzzzzzz']\n", 1));
  EXPECT_EQ(error_of([&] { Trainer(read.config, read.resolved, folder_->file("zzz")); }),
            "train.freeze.0: 'zzzzzzzzzzzz' matches no weight; known: network.*");
  const Read all(model_section + training("  freeze: ['*']\n", 1));
  EXPECT_EQ(error_of([&] { Trainer(all.config, all.resolved, folder_->file("zzz")); }), "train.freeze leaves no weight to train");
}

TEST_F(FromSource, OnlyTheNamedWeightsAreTrained) {
  const std::string folder = folder_->file("only");
  run(Read(training(from("model") + "  train_only: ['network.out.*']\n", 3)), folder);
  const NamedTensors source = load_tensors(file("model")), model = load_tensors(folder + "/model.safetensors");
  for (const NamedTensor& t : source) EXPECT_EQ(find(model, t.name)->equal(t.tensor), !t.name.starts_with("network.out.")) << t.name;
  EXPECT_EQ(said(training(from("model") + "  train_only: ['netwrok.*']\n", 1)),
            "x.yaml:3:16: train.train_only.0: 'netwrok.*' matches no weight; did you mean 'network.*'?");
}

TEST_F(FromSource, GroupsOfWeightsAreSections) {
  EXPECT_EQ(said(training(from("model") + "  groups:\n    - {match: 'network.otu.*', lr: 1e-6}\n    - {match: '*', lrr: 1}\n", 1)),
            "x.yaml:5:20: train.groups.1: unknown key 'lrr'; did you mean 'lr'?");
  EXPECT_EQ(said(training(from("model") + "  groups:\n    - {match: 'network.otu.*', lr: 1e-6}\n", 1)),
            "x.yaml:4:15: train.groups.0.match: 'network.otu.*' matches no weight; did you mean 'network.out.*'?");
  const std::string folder = folder_->file("groups");
  run(Read(training(from("model") + "  groups: [{match: '*', lr: 0}, {match: 'network.out.*', lr: 0.01}]\n", 3)), folder);
  const NamedTensors source = load_tensors(file("model")), state = load_tensors(folder + "/training.safetensors");
  for (const NamedTensor& t : source)
    if (!t.name.starts_with("network.out.")) {
      EXPECT_TRUE(find(state, "weights." + t.name)->equal(t.tensor)) << t.name;
    }
  EXPECT_FALSE(find(state, "weights.network.out.0.weight")->equal(*find(source, "network.out.0.weight")));
}

TEST_F(FromSource, FewerClassesAndAnotherParameterization) {
  const std::string model = "model: {conditioner: {classes: 5}, parameterization: eps}\n";
  const std::string train = training(from("model") + "  adopt: {classes: {0: 1, 1: 0, 2: 2, 3: 3, 4: 4}, head: new}\n", 2);
  EXPECT_NE(said(model + training(from("model"), 1)).find("train.adopt: {head: new} lets it differ"), std::string::npos);
  const Read read(model + train);
  EXPECT_EQ(read.config.sample.steps, 7);
  const Trainer trainer(read.config, read.resolved, folder_->file("adopted"));
  const NamedTensors source = load_tensors(file("model"));
  for (const Weight& w : trainer.weights()) {
    const Tensor old = *find(source, w.name);
    if (w.name == "network.label_emb.weight") {
      EXPECT_TRUE(w.tensor[0].equal(old[1]) && w.tensor[1].equal(old[0]) && w.tensor[5].equal(old[5]));
    } else {
      EXPECT_EQ(w.tensor.equal(old), !w.name.starts_with("network.out.2.")) << w.name;
    }
  }
}

/// attention_resolutions names heights: with images of another size, a network attends at the levels where it did.
TEST_F(FromSource, AnotherSizeKeepsTheLevelsOfAttention) {
  std::string yaml = model_section;
  yaml.replace(yaml.find("attention_resolutions: []"), 25, "attention_resolutions: [4], heads: 2");
  run(Read(yaml + training("", 1)), folder_->file("attends"));
  const std::string from = "  from: " + folder_->file("attends") + "\n";
  const auto sized = [&](int64_t size) { return fmt::format("model: {{image: {{height: {0}, width: {0}}}}}\n", size); };
  EXPECT_NE(error_of([&] { Read(sized(16) + training(from, 1)); }).find("train.adopt: {} lets it differ"), std::string::npos);
  for (const int64_t size : {16, 32}) {
    const Read read(sized(size) + training(from + "  adopt: {}\n", 1));
    EXPECT_EQ(read.resolved.find("model")->find("network")->find("attention_resolutions")->items.at(0).scalar, std::to_string(size / 2));
    run(read, folder_->file("sized" + std::to_string(size)));
  }
}

TEST_F(FromSource, KeysThatAreLeftOutOfTheModelAreTheSources) {
  const Read part("model: {conditioner: {dropout: 0.2}}\n" + training(from("model"), 1)), none(training(from("model"), 1));
  EXPECT_EQ(dump_yaml(*part.resolved.find("model")->find("network")), dump_yaml(*none.resolved.find("model")->find("network")));
  EXPECT_EQ(said("model: {conditioner: {classes: 4}}\n" + training(from("model"), 1)),
            "x.yaml:1:32: model.conditioner.classes: is 4 here and 5 in 'model/model.safetensors', which train.from names; train.adopt: "
            "{classes: {...}} lets it differ\nmodel/model.safetensors: tensor 'network.label_emb.weight' has shape [6, 32], the model's "
            "has [5, 32]; "
            "train.adopt.classes says which class becomes which");
}

TEST_F(FromSource, ATensorOfAnotherShapeIsNamed) {
  std::map<std::string, std::string> metadata;
  NamedTensors tensors = load_tensors(file("model"), &metadata);
  std::vector<std::string> expected;
  const std::string changed = folder_->file("changed.safetensors");
  for (size_t i : {size_t(0), size_t(3)}) {
    tensors[i].tensor = at::zeros({7, 5});
    expected.push_back("tensor '" + tensors[i].name + "' has shape [7, 5], the model's has [");
  }
  write_safetensors(changed, tensors, metadata);
  const Read read(training("  from: " + changed + "\n", 1));
  const std::string error = error_of([&] { Trainer(read.config, read.resolved, folder_->file("shape")); });
  for (const std::string& part : expected) EXPECT_NE(error.find(part), std::string::npos) << error;
  EXPECT_FALSE(fs::exists(folder_->file("shape")));
}

TEST_F(FromSource, ATrainingKeepsItsFrozenWeights) {
  const Read before(training(from("model"), 1)), after(training(from("model", "['network.*']"), 1));
  EXPECT_EQ(error_of([&] { changes_since(builtins(), before.resolved, after.resolved, after.resolved); }),
            "the weights of a training's optimizers cannot be changed: train.freeze is [] and would be [network.*]");
  const Read elsewhere(model_section + training("", 1));
  EXPECT_EQ(changes_since(builtins(), before.resolved, elsewhere.resolved, elsewhere.resolved), "") << "a resumed training opens no source";
}

TEST_F(FromSource, AModelOfAnotherProgram) {
  BRUME_NEED_REF("pipe/tiny_sd");
  const fs::path directory = ref_path("pipe/tiny_sd");
  const Read read(
      fmt::format("train:\n  from: {}\n  freeze: ['conditioner.*']\n  data: shapes\n  batch: 1\n  steps: 1\n"
                  "  preview: {{count: 0}}\ncompute: {{precision: fp32, threads: 1}}\n",
                  directory.lexically_normal().string()));
  const std::string folder = folder_->file("foreign");
  run(read, folder);
  const StoredModel source = open_stored(directory.lexically_normal().string());
  const NamedTensors model = load_tensors(folder + "/model.safetensors");
  int64_t kept = 0, learned = 0;
  for (const NamedTensor& t : source.tensors) {
    ASSERT_TRUE(find(model, t.name)) << t.name;
    if (t.name.starts_with("conditioner.")) {
      EXPECT_TRUE(find(model, t.name)->equal(t.tensor)) << t.name;
    }
    (find(model, t.name)->equal(t.tensor) ? kept : learned) += 1;
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(learned, 0);
}

}  // namespace
}  // namespace brume::test
