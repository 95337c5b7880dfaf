// train.cache: a training has the bits that it has without, encodes nothing twice, and encodes again what changed.
#include <ATen/ops/equal.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "brume/core/conditioner.h"
#include "brume/core/warnings.h"
#include "brume/image/image.h"
#include "brume/train/trainer.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;

class EncodedCaches : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    write_clip_tokenizer(*folder_, "clip");
    for (const char* name : {"a", "b", "c", "d"}) {
      paint(name, uint8_t(40 * (name[0] - 'a' + 1)));
      folder_->file(fmt::format("photos/{}.txt", name), fmt::format("a red circle {}", name));
    }
    NamedTensors weights;
    const auto encoder = make<Conditioner>(clip("trainable: true"))->encoder({.seed = 3});
    for (const Weight& w : encoder->weights()) weights.push_back({w.name, w.tensor});
    write_safetensors(folder_->file("clip.safetensors"), weights);
  }
  static void TearDownTestSuite() { delete folder_; }

  static std::string clip(const std::string& more) {
    return fmt::format("{{type: clip_text, tokenizer: {}, width: 16, depth: 2, heads: 2, mlp: 32, length: 12, dropout: 0.3, {}}}",
                       folder_->file("clip"), more);
  }
  static void paint(const std::string& name, uint8_t value) {
    Image image(16, 16, 3, value);
    image.pixels[5] = 255;
    fs::create_directories(folder_->path() / "photos");
    write_png(folder_->file(fmt::format("photos/{}.png", name)), image);
  }

  /// Trains 6 steps of 3 images; returns the weights at the end.
  static NamedTensors train(const std::string& name, const std::string& cache, const std::string& first_stage = "",
                            const std::string& data = "") {
    const std::string yaml = fmt::format(
        "model:\n  image: {{channels: 3, height: 16, width: 16}}\n"
        "  autoencoder: {{type: kl, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, latent_channels: 2{}}}\n"
        "  network: {{type: unet, channels: 8, multipliers: [1], blocks: 1, groups: 4, attention_resolutions: [8], heads: 2, "
        "transformer: {{depth: [1]}}}}\n"
        "  conditioner: {}\n"
        "train:\n  data: {{type: captioned_folder, path: {}{}}}\n  batch: 3\n  steps: 6\n  accumulate: 1\n  preview: {{count: 0}}\n{}"
        "compute: {{threads: 1, precision: fp32}}\n",
        first_stage, clip("weights: " + folder_->file("clip.safetensors")), folder_->file("photos"), data,
        cache.empty() ? "" : fmt::format("  cache: {}\n", folder_->file(cache)));
    Trainer::from_yaml(yaml, {.directory = folder_->file(name)})->run([] { return false; });
    return load_tensors(folder_->file(name + "/training.safetensors"));
  }
  static void expect_equal(const NamedTensors& a, const NamedTensors& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i].tensor, b[i].tensor)) << a[i].name;
  }
  static std::vector<fs::path> files(const std::string& cache, const std::string& part) {
    std::vector<fs::path> all;
    for (const auto& entry : fs::recursive_directory_iterator(folder_->path() / cache))
      if (entry.is_regular_file() && entry.path().lexically_relative(folder_->path() / cache).string().starts_with(part))
        all.push_back(entry.path());
    std::sort(all.begin(), all.end());
    return all;
  }
  inline static TempFolder* folder_ = nullptr;
};

TEST_F(EncodedCaches, KeepTheBitsOfTheTraining) {
  const NamedTensors plain = train("plain", "");
  expect_equal(train("first", "cache"), plain);
  EXPECT_EQ(files("cache", "kl-").size(), 4u);
  EXPECT_EQ(files("cache", "captions-").size(), 5u) << "four captions, and the empty one";
  std::vector<fs::file_time_type> before, after;
  for (const fs::path& file : files("cache", "")) before.push_back(fs::last_write_time(file));
  expect_equal(train("second", "cache"), plain);
  for (const fs::path& file : files("cache", "")) after.push_back(fs::last_write_time(file));
  EXPECT_EQ(before, after) << "something was encoded again";
}

TEST_F(EncodedCaches, AreReallyRead) {
  const NamedTensors plain = train("honest", "read");
  for (const fs::path& file : files("read", "kl-")) {
    NamedTensors moments = load_tensors(file.string());
    write_safetensors(file.string(), {{"moments", moments[0].tensor + 1}});
  }
  const NamedTensors other = train("cheated", "read");
  EXPECT_FALSE(std::equal(plain.begin(), plain.end(), other.begin(),
                          [](const NamedTensor& a, const NamedTensor& b) { return at::equal(a.tensor, b.tensor); }));
}

TEST_F(EncodedCaches, EncodeAgainWhatChanged) {
  train("before", "changes");
  paint("b", 201);
  folder_->file("photos/c.txt", "a blue square");
  const NamedTensors cached = train("after", "changes");
  EXPECT_EQ(files("changes", "kl-").size(), 5u);
  EXPECT_EQ(files("changes", "captions-").size(), 6u);
  expect_equal(cached, train("after_plain", ""));
  train("other_stage", "changes", ", inner_channels: 4");
  EXPECT_EQ(files("changes", "kl-").size(), 9u) << "of another first stage";
}

TEST_F(EncodedCaches, MendDamagedFiles) {
  const NamedTensors plain = train("whole", "damaged");
  const fs::path victim = files("damaged", "kl-").front(), words = files("damaged", "captions-").front();
  fs::resize_file(victim, fs::file_size(victim) / 2);
  fs::resize_file(words, 3);
  expect_equal(train("mended", "damaged"), plain);
  EXPECT_EQ(load_tensors(victim.string()).size(), 1u);
}

TEST_F(EncodedCaches, WarnIfNothingGoesThroughThem) {
  std::vector<std::string> said;
  const WarningScope scope([&](const std::string& text) { said.push_back(text); });
  const std::string yaml =
      "model:\n  image: {channels: 1, height: 8, width: 8}\n  network: {type: unet, channels: 8, multipliers: [1], blocks: 1, groups: 4}\n"
      "train:\n  data: {type: shapes}\n  batch: 2\n  steps: 1\n  preview: {count: 0}\n  cache: " +
      folder_->file("unused") + "\ncompute: {threads: 1, precision: fp32}\n";
  Trainer::from_yaml(yaml, {.directory = folder_->file("pixels")})->run([] { return false; });
  EXPECT_NE(std::find(said.begin(), said.end(),
                      "train.cache has no effect: no first stage encodes these images, and no frozen text encoder their captions"),
            said.end());
}

}  // namespace
}  // namespace brume::test
