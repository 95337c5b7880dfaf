// Adapters that are trained on frozen weights: their files, added to the base, are the live model bit for bit.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "brume/core/warnings.h"
#include "brume/files/mapped_file.h"
#include "brume/files/sha256.h"
#include "brume/image/image.h"
#include "brume/interop/textual_inversion.h"
#include "brume/model.h"
#include "brume/train/trainer.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/refs.h"
#include "support/tempdir.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;

class Adapters : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    write_clip_tokenizer(*folder_, "clip");
    train(fmt::format(
              "model:\n  image: {{height: 8, width: 8}}\n"
              "  network: {{type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, attention_resolutions: [8], heads: "
              "2, zero_init: false, transformer: {{depth: [1]}}}}\n"
              "  conditioner: {{type: clip_text, tokenizer: {}, trainable: true, width: 16, depth: 2, heads: 2, mlp: 32, length: 10}}\n"
              "  parameterization: v\n",
              folder_->file("clip")) +
              "sample: {steps: 2, guidance: [{type: cfg, scale: 3}]}\n" + section("", 3),
          "base");
  }
  static void TearDownTestSuite() { delete folder_; }

  static std::string section(const std::string& more, int64_t steps) {
    return fmt::format(
        "train:\n  data: {{type: shapes, caption: short}}\n  optimizer: {{type: adamw, lr: 0.01}}\n  batch: 4\n  steps: {}\n"
        "  ema: {{decay: 0}}\n  preview: {{count: 0}}\n  log_every: 1\n{}compute: {{threads: 1, precision: fp32}}\n",
        steps, more);
  }
  /// Trains into a folder; stops after `stop_at` steps if that is given.
  static void train(const std::string& yaml, const std::string& name, int64_t stop_at = -1, const std::string& resume = "") {
    const auto trainer = Trainer::from_yaml(yaml, {.directory = folder_->file(name), .resume = resume});
    trainer->run([&] { return trainer->step() == stop_at; });
  }
  static std::string with(const std::string& adapters, int64_t steps = 3) {
    return section(fmt::format("  from: {}\n  adapters: {}\n  triggers: [mist]\n", folder_->file("base/model.safetensors"), adapters),
                   steps);
  }
  static Tensor image(const std::string& model, const std::vector<std::string>& loras = {}) {
    return Model::open(folder_->file(model), {.precision = "fp32", .loras = loras})
        .sample({.prompts = {"red circle"}, .count = 1, .seed = 7});
  }
  static double first_loss(const std::string& run) {
    std::ifstream in(folder_->file(run + "/metrics.jsonl"));
    std::string line;
    std::getline(in, line);
    const std::string key = "\"loss\":";
    return std::stod(line.substr(line.find(key) + key.size()));
  }
  static std::string hash() { return sha256(MappedFile::open(folder_->file("base/model.safetensors"))->bytes()); }
  static std::string said(const std::string& yaml) {
    try {
      train(yaml, "refused");
    } catch (const ConfigError& e) {
      return without(e.what(), *folder_);
    }
    return "";
  }
  inline static TempFolder* folder_ = nullptr;
};

TEST_F(Adapters, TheirFilesAreTheLiveModelBitForBit) {
  const std::string before = hash();
  const Tensor base = image("base");
  int of_convolutions = 0;
  for (const char* type : {"lora", "dora", "loha", "lokr"}) {
    SCOPED_TRACE(type);
    train(with(fmt::format("[{{type: {}, rank: 2, alpha: 3, targets: [attention, feed_forward, convolutions, text_encoder]}}]", type)),
          type);
    const Tensor live = image(type);
    EXPECT_FALSE(at::equal(live, base));
    EXPECT_TRUE(at::equal(live, image("base", {folder_->file(fmt::format("{}/adapter.safetensors", type))})));
    const std::string other = folder_->file(fmt::format("{}/adapter_diffusers.safetensors", type));
    EXPECT_EQ(fs::exists(other), std::string(type).find("lo") != 0 || std::string(type) == "lora") << "LoHa and LoKr have no names there";
    if (fs::exists(other)) {
      for (const NamedTensor& t : load_tensors(other))  // PEFT's magnitudes: [out], of a convolution [1, out, 1, 1]
        if (t.name.find("lora_magnitude_vector") != t.name.npos && t.tensor.dim() != 1) {
          EXPECT_EQ(t.tensor.sizes(), (std::vector<int64_t>{1, t.tensor.numel(), 1, 1})) << t.name;
          ++of_convolutions;
        }
      EXPECT_TRUE(at::equal(live, image("base", {other})));
    }
    std::map<std::string, std::string> metadata;
    load_tensors(folder_->file(fmt::format("{}/adapter.safetensors", type)), &metadata);
    EXPECT_EQ(metadata["brume.base_sha256"], before);
    EXPECT_EQ(metadata["ss_network_dim"], "2");
    EXPECT_EQ(metadata["ss_steps"], "3");
    EXPECT_EQ(metadata["modelspec.trigger_phrase"], "mist");
  }
  EXPECT_EQ(hash(), before);
  EXPECT_GT(of_convolutions, 0);
}

/// A published text encoder, which is not trained itself, learns by adapters as one that is.
TEST_F(Adapters, ReachATextEncoderThatIsNotTrained) {
  std::map<std::string, std::string> metadata;
  const NamedTensors tensors = load_tensors(folder_->file("base/model.safetensors"), &metadata);
  int changed = 0;
  for (auto& [key, text] : metadata)
    if (const size_t at = text.find("trainable: true"); at != text.npos) text.replace(at, 15, "trainable: false"), ++changed;
  ASSERT_GE(changed, 1);
  write_safetensors(folder_->file("frozen.safetensors"), tensors, metadata);
  const std::string grouped =
      section("  from: " + folder_->file("frozen.safetensors") + "\n  groups: [{match: 'conditioner.*', lr: 0.001}]\n", 2);
  EXPECT_NE(said(grouped).find("model.conditioner.trainable: true trains a text encoder"), std::string::npos) << said(grouped);
  train("model: {conditioner: {trainable: true}}\n" + grouped, "unfrozen");
  std::string other = grouped;
  other.replace(other.find("conditioner.*"), 13, "text_encoder.*");
  train("model: {conditioner: {trainable: true}}\n" + other, "unfrozen_too");
  EXPECT_EQ(first_loss("unfrozen_too"), first_loss("unfrozen"));
  int moved = 0;
  for (const NamedTensor& t : load_tensors(folder_->file("unfrozen/model.safetensors")))
    if (t.name.starts_with("conditioner.")) moved += !t.tensor.equal(*find(tensors, t.name));
  EXPECT_GT(moved, 10);
  const std::string adapters = "  adapters: [{type: lora, rank: 2, targets: [text_encoder]}]\n";
  const auto learned = [&](const std::string& base, const std::string& name) {
    train(section("  from: " + folder_->file(base) + "\n" + adapters, 3), name);
    return load_tensors(folder_->file(name + "/adapter.safetensors"));
  };
  const NamedTensors frozen = learned("frozen.safetensors", "of_frozen"), trained = learned("base/model.safetensors", "of_trained");
  ASSERT_EQ(frozen.size(), trained.size());
  for (size_t i = 0; i < frozen.size(); ++i) EXPECT_TRUE(frozen[i].tensor.equal(trained[i].tensor)) << frozen[i].name;
  for (const NamedTensor& t : frozen)
    if (t.name.find("lora_up") != t.name.npos) {
      EXPECT_GT(t.tensor.abs().max().item<double>(), 0) << t.name;
    }
}

TEST_F(Adapters, SeveralAtOnceAddUp) {
  train(with("[{type: lora, rank: 2}, {type: lokr, rank: 1, targets: [attention, convolutions]}]"), "two");
  EXPECT_TRUE(
      at::equal(image("two"), image("base", {folder_->file("two/adapter_1.safetensors"), folder_->file("two/adapter_2.safetensors")})));
}

TEST_F(Adapters, BeginAsTheBase) {
  train(section("  from: " + folder_->file("base/model.safetensors") + "\n", 1), "plain");
  train(with("[{type: dora, rank: 2, targets: [attention, convolutions, text_encoder]}]", 1), "begun");
  // To rounding: layers that learn may take other kernels than frozen ones.
  EXPECT_NEAR(first_loss("begun"), first_loss("plain"), 1e-6 * first_loss("plain"));
}

/// Grids are made of the weights in training, whose sums with the changes are formed at each use.
TEST_F(Adapters, SampleGridsBeginAsThoseOfTheBase) {
  const auto shown = [](std::string yaml, const std::string& name) {
    yaml.replace(yaml.find("preview: {count: 0}"), 19, "preview: {count: 2, steps: 2, every: 3, base: true}");
    train(yaml, name);
    return read_image(folder_->file(name + "/samples/base.png"));
  };
  const Image plain = shown(section("  from: " + folder_->file("base/model.safetensors") + "\n", 3), "shown_plain"),
              adapted = shown(with("[{type: lora, rank: 2, targets: [attention, convolutions, text_encoder]}]"), "shown_adapted");
  ASSERT_EQ(adapted.pixels.size(), plain.pixels.size());
  for (size_t i = 0; i < plain.pixels.size(); ++i) ASSERT_NEAR(adapted.pixels[i], plain.pixels[i], 1) << i;
  EXPECT_TRUE(fs::exists(folder_->file("shown_adapted/samples/step_000003.png")));
}

TEST_F(Adapters, ResumeBitForBitOnTheSameBaseAlone) {
  const std::string yaml = with(
      "[{type: lora, rank: 2, targets: [attention, text_encoder]}, {type: textual_inversion, token: <mist>, "
      "init: circle}]",
      4);
  train(yaml, "through");
  train(yaml, "halves", 2);
  train(yaml, "halves", -1, folder_->file("halves/training.safetensors"));
  const NamedTensors one = load_tensors(folder_->file("through/training.safetensors")),
                     two = load_tensors(folder_->file("halves/training.safetensors"));
  ASSERT_EQ(one.size(), two.size());
  for (const NamedTensor& t : one) EXPECT_TRUE(t.tensor.equal(*find(two, t.name))) << t.name;
  fs::create_directories(folder_->file("moved"));
  fs::copy_file(folder_->file("through/model.safetensors"), folder_->file("moved/model.safetensors"));
  std::string other = yaml;
  other.replace(other.find(folder_->file("base/")), folder_->file("base/").size(), folder_->file("moved/"));
  try {
    train(other, "halves", -1, folder_->file("halves/training.safetensors"));
    FAIL() << "another base was taken";
  } catch (const ConfigError& e) {
    EXPECT_NE(std::string(e.what()).find("the adapters of this training are of a base with " + hash()), std::string::npos) << e.what();
  }
}

TEST_F(Adapters, ANewWordLeavesTheModelAsItIs) {
  std::string said;
  {
    const WarningScope warnings([&](const std::string& text) { said += text; });
    train(with("[{type: textual_inversion, token: <mist>, vectors: 2, init: red circle}]"), "word");
  }
  EXPECT_NE(said.find("train.adapters.0.init: 'red circle' has 5 tokens, and the word 2 vectors"), std::string::npos) << said;
  const NamedTensors base = load_tensors(folder_->file("base/model.safetensors"));
  for (const NamedTensor& t : load_tensors(folder_->file("word/model.safetensors")))
    EXPECT_TRUE(t.tensor.equal(*find(base, t.name))) << t.name;
  const NamedTensors word = load_tensors(folder_->file("word/embedding.safetensors"));
  ASSERT_EQ(word.size(), 1u);
  EXPECT_EQ(word[0].name, "<mist>");
  EXPECT_EQ(word[0].tensor.sizes(), (std::vector<int64_t>{2, 16}));
  std::map<std::string, std::string> metadata;
  load_tensors(folder_->file("word/embedding.safetensors"), &metadata);  // after three steps it is near where it began
  EXPECT_EQ(metadata["brume.nearest_words"].find("red "), 0U) << metadata["brume.nearest_words"];
  EXPECT_NE(metadata["brume.nearest_words"].find("; cir "), std::string::npos) << metadata["brume.nearest_words"];
}

/// Validation reads the new word with the vectors that it has at that step.
TEST_F(Adapters, AreValidatedWithTheirWord) {
  fs::create_directories(folder_->path() / "mist");
  write_png(folder_->file("mist/a.png"), Image(8, 8, 3, 90));
  const std::string data = fmt::format("{{type: captioned_folder, path: {}, prompt: <mist> circle}}", folder_->file("mist"));
  train(fmt::format("train:\n  from: {}\n  adapters: [{{type: textual_inversion, token: <mist>, init: red}}]\n  data: {}\n"
                    "  validation: {{data: {}, images: 1, levels: 2}}\n  optimizer: {{type: adamw, lr: 0.5}}\n  batch: 1\n  steps: 3\n"
                    "  checkpoint_every: 1\n  ema: {{decay: 0}}\n  preview: {{count: 0}}\ncompute: {{threads: 1, precision: fp32}}\n",
                    folder_->file("base/model.safetensors"), data, data),
        "validated");
  std::ifstream in(folder_->file("validated/metrics.jsonl"));
  std::set<std::string> losses;
  const std::string key = "\"validation_loss\":";
  for (std::string line; std::getline(in, line);)
    if (const size_t at = line.find(key); at != line.npos) losses.insert(line.substr(at, line.find_first_of(",}", at) - at));
  EXPECT_EQ(losses.size(), 3U);
}

/// The training goes on after a sample grid that fails, and the word learns on.
TEST_F(Adapters, LearnOnAfterAGridThatFails) {
  std::string yaml = with("[{type: textual_inversion, token: <mist>, init: red}]");
  yaml.replace(yaml.find("preview: {count: 0}"), 19, "preview: {count: 1, every: 1, prompts: [<mist>]}");
  const auto vectors = [&](const std::string& name) {
    train(yaml, name);
    return load_tensors(folder_->file(name + "/embedding.safetensors")).at(0).tensor;
  };
  fs::create_directories(folder_->file("disturbed/samples/step_000001.png/in_the_way"));
  std::string said;
  const WarningScope warnings([&](const std::string& text) { said += text; });
  EXPECT_TRUE(at::equal(vectors("disturbed"), vectors("undisturbed")));
  EXPECT_NE(said.find("the sample grid failed, and the training goes on"), std::string::npos) << said;
}

/// A conditioner of the source is one of several here: words, and an image to paint into.
TEST_F(Adapters, AModelOfWordsLearnsToInpaint) {
  const std::string composite = fmt::format(
      "model:\n  conditioner:\n    type: composite\n    of:\n      - {{type: clip_text, tokenizer: {}, trainable: true, width: 16, depth: "
      "2, "
      "heads: 2, mlp: 32, length: 10}}\n      - {{type: concat_image, image: masked, keep: true}}\n",
      folder_->file("clip"));
  train(composite + section("  from: " + folder_->file("base/model.safetensors") +
                                "\n  adopt: {input_channels: pad}\n  train_only: ['network.*']\n",
                            1),
        "inpaints");
  const NamedTensors base = load_tensors(folder_->file("base/model.safetensors")),
                     model = load_tensors(folder_->file("inpaints/model.safetensors"));
  int same = 0;
  for (const NamedTensor& t : base)
    if (t.name.starts_with("conditioner.")) same += t.tensor.equal(*find(model, "conditioner.0." + t.name.substr(12)));
  EXPECT_GT(same, 10);
}

/// Of SDXL: each of its two encoders learns vectors of its own, in one file.
TEST_F(Adapters, TeachTwoTextEncodersAWord) {
  BRUME_NEED_REF("../refs2/sdxl/tiny_sdxl/model_index.json");
  const std::string base = ref_path("../refs2/sdxl/tiny_sdxl").string();
  fs::create_directories(folder_->path() / "two_encoders");
  write_png(folder_->file("two_encoders/a.png"), Image(64, 64, 3, 90));
  const auto word = [&](int64_t steps) {
    const std::string name = fmt::format("xl_{}", steps);
    train(fmt::format("train:\n  from: {}\n  adapters: [{{type: textual_inversion, token: <mist>, vectors: 2, init: red}}]\n"
                      "  data: {{type: captioned_folder, path: {}, prompt: a <mist>}}\n  optimizer: {{type: adamw, lr: 0.01}}\n"
                      "  batch: 1\n  steps: {}\n  preview: {{count: 0}}\ncompute: {{threads: 1, precision: fp32}}\n",
                      base, folder_->file("two_encoders"), steps),
          name);
    return load_tensors(folder_->file(name + "/embedding.safetensors"));
  };
  const NamedTensors one = word(1), three = word(3);
  ASSERT_EQ(three.size(), 2u);
  for (const auto& [encoder, width] : {std::pair<const char*, int64_t>{"clip_l", 64}, {"clip_g", 128}}) {
    EXPECT_EQ(find(three, encoder)->sizes(), (std::vector<int64_t>{2, width}));
    EXPECT_FALSE(find(one, encoder)->equal(*find(three, encoder))) << encoder;
  }
  const Word read = read_embedding(folder_->file("xl_3/embedding.safetensors"));
  EXPECT_EQ(read.text, "<mist>");
  EXPECT_TRUE(read.others.at(0).equal(*find(three, "clip_g")));
}

TEST_F(Adapters, AWordThatNoCaptionHoldsIsSaid) {
  std::string said;
  const WarningScope warnings([&](const std::string& text) { said += text; });
  train(with("[{type: textual_inversion, token: <mist>, init: red}, {type: lora, rank: 1}]", 13), "never");
  EXPECT_NE(said.find("train.adapters.0.token: no caption of the first 52 images holds '<mist>'"), std::string::npos) << said;
}

/// kohya's loaders look for those of residual blocks and of resampling.
TEST_F(Adapters, ConvolutionsAreWithoutTheFirstAndTheLast) {
  train(with("[{type: lora, rank: 1, targets: [convolutions]}]", 1), "convolutions");
  std::string all;
  for (const NamedTensor& t : load_tensors(folder_->file("convolutions/adapter.safetensors"))) all += t.name + " ";
  EXPECT_NE(all.find("lora_unet_down_blocks_0_resnets_0_conv1.lora_down"), std::string::npos) << all;
  EXPECT_EQ(all.find("conv_in"), std::string::npos) << all;
  EXPECT_EQ(all.find("conv_out"), std::string::npos) << all;
}

TEST_F(Adapters, StandInEachCheckpointThatIsKept) {
  train(with("[{type: lora, rank: 1}, {type: textual_inversion, token: <mist>, init: red}]\n  checkpoint_every: 1\n  keep: 2", 4), "kept");
  EXPECT_FALSE(fs::exists(folder_->file("kept/checkpoints/step_000002")));
  for (const char* file : {"adapter_1.safetensors", "adapter_1_diffusers.safetensors", "embedding.safetensors"}) {
    const auto of = [&](const std::string& folder) { return load_tensors(folder_->file("kept/" + folder + file)); };
    const NamedTensors third = of("checkpoints/step_000003/"), fourth = of("checkpoints/step_000004/"), last = of("");
    size_t moved = 0;
    for (const NamedTensor& t : last) {
      EXPECT_TRUE(t.tensor.equal(*find(fourth, t.name))) << file << " " << t.name;
      moved += !t.tensor.equal(*find(third, t.name));
    }
    EXPECT_GT(moved, 0u) << file;
  }
}

TEST_F(Adapters, Mistakes) {
  EXPECT_NE(said(with("[{type: lora, targets: [attention, atention]}]"))
                .find(": train.adapters.0.targets.1: 'atention' matches no weight; did you mean 'attention'?"),
            std::string::npos);
  EXPECT_NE(said(with("[{type: textual_inversion, token: cat, init: red}]"))
                .find("train.adapters.0.token: 'cat' is a token of this model already"),
            std::string::npos);
  EXPECT_NE(said("model: {image: {height: 8, width: 8}, network: {type: unet, channels: 8, multipliers: [1], blocks: 1, groups: 4}}\n" +
                 section("  adapters: [{type: lora}]\n", 1))
                .find("needs `from`"),
            std::string::npos);
}

}  // namespace
}  // namespace brume::test
