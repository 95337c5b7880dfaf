// Latents made once for a whole training: what is kept, what is refused, and the same losses as encoding on the fly.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>

#include "brume/config/yaml.h"
#include "brume/data/latent_shards.h"
#include "brume/diffusion/fingerprint.h"
#include "brume/diffusion/pipeline.h"
#include "brume/train/encoding.h"
#include "brume/weights/safetensors.h"
#include "support/process.h"
#include "train/autoencoder_support.h"

namespace brume::test {
namespace fs = std::filesystem;
namespace {

/// Forty captioned images of 8 x 8 in two classes, which a number tells.
class Numbered final : public Dataset {
 public:
  explicit Numbered(int64_t size = 40) : size_(size) {}
  int64_t size() const override { return size_; }
  const std::vector<std::string>& classes() const override { return classes_; }
  Annotation read(int64_t index, uint64_t, std::span<float> pixels) const override {
    for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = float((int64_t(i) * 7 + index * 13) % 41) / 20 - 1;
    return {.label = index % 3 == 2 ? -1 : index % 3, .caption = index % 5 == 0 ? "" : fmt::format("Bild {} \u00e4", index)};
  }

 private:
  int64_t size_;
  std::vector<std::string> classes_{"a", "b"};
};

std::shared_ptr<Autoencoder> kl(uint64_t seed = 1, const std::string& more = "") {
  return make<Autoencoder>("{type: kl, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4}", Autoencoder::Context{{1, 8, 8}, seed},
                           more);
}

void encode(const fs::path& folder, const Autoencoder& autoencoder, const Dataset& data, const EncodingOptions& options) {
  encode_set(autoencoder, fingerprint(autoencoder, "kl"), at::kCPU, data, {1, 8, 8}, folder, options, nullptr);
}

TEST(Latents, AreTheMomentsOfTheImages) {
  const at::NoGradGuard no_grad;
  const TempFolder folder;
  const auto autoencoder = kl();
  const Numbered data;
  for (const bool half : {false, true}) {
    const fs::path out = folder.path() / (half ? "half" : "whole");
    encode(out, *autoencoder, data, {.batch = 7, .shard = 15, .half = half});
    const auto cached = make<Dataset>("{type: latents}", Dataset::Context{{1, 8, 8}}, "path: " + out.string());
    ASSERT_EQ(cached->size(), 40);
    EXPECT_EQ(cached->classes(), data.classes());
    ASSERT_TRUE(cached->encoded());
    EXPECT_EQ(cached->encoded()->shape, (ImageShape{8, 4, 4}));
    EXPECT_EQ(cached->encoded()->autoencoder, fingerprint(*autoencoder, "kl"));
    for (const int64_t i : {0, 14, 15, 29, 39}) {
      const Tensor image = at::empty({1, 1, 8, 8}, at::kFloat), moments = at::empty({1, 8, 4, 4}, at::kFloat);
      const Annotation a = data.read(i, 0, {image.data_ptr<float>(), 64});
      const Annotation b = cached->read(i, 0, {moments.data_ptr<float>(), 128});
      EXPECT_EQ(a.label, b.label);
      EXPECT_EQ(a.caption, b.caption);
      const Tensor expected = autoencoder->encode_moments(image).detach();
      if (half)
        EXPECT_TRUE(moments.allclose(expected, 1e-3, 1e-4)) << i;
      else
        EXPECT_TRUE(moments.equal(expected)) << i;
    }
  }
}

/// Every file of a folder, by its name.
std::map<std::string, std::string> files_in(const fs::path& folder) {
  std::map<std::string, std::string> all;
  for (const auto& entry : fs::directory_iterator(folder)) all[entry.path().filename().string()] = read_text(entry.path());
  return all;
}

TEST(Latents, OfSeveralProcessesAreThoseOfOne) {
  const TempFolder folder;
  const auto autoencoder = kl();
  const auto as_rank = [&](int64_t rank) {
    const EncodingOptions options{.batch = 4, .shard = 7, .place = {.rank = rank, .size = 3}};
    return encode_set(*autoencoder, "kl", at::kCPU, Numbered(), {1, 8, 8}, folder.path() / "three", options, nullptr);
  };
  const Encoded one = encode_set(*autoencoder, "kl", at::kCPU, Numbered(), {1, 8, 8}, folder.path() / "one", {.shard = 7}, nullptr);
  EXPECT_EQ(one.indexed, 40);
  EXPECT_EQ(as_rank(2).indexed, 0);
  EXPECT_EQ(as_rank(0).indexed, 0);
  EXPECT_FALSE(fs::exists(folder.path() / "three/index.json"));
  const EncodingOptions rest{.batch = 4, .shard = 7, .missing = true};  // rank 1 was lost
  const Encoded made = encode_set(*autoencoder, "kl", at::kCPU, Numbered(), {1, 8, 8}, folder.path() / "three", rest, nullptr);
  EXPECT_EQ(made.shards, 2);
  EXPECT_EQ(made.images, 14);
  EXPECT_EQ(made.indexed, 40);
  EXPECT_EQ(files_in(folder.path() / "three"), files_in(folder.path() / "one"));
  EXPECT_EQ(encode_set(*autoencoder, "kl", at::kCPU, Numbered(), {1, 8, 8}, folder.path() / "three", rest, nullptr).shards, 0);
  const std::string other = error_of([&] {
    encode_set(*autoencoder, "other", at::kCPU, Numbered(), {1, 8, 8}, folder.path() / "three", rest, nullptr);
  });
  EXPECT_NE(other.find("latents-00000.safetensors was made of {"), std::string::npos) << other;
}

TEST(Latents, TakeOnlyAFolderWithoutAny) {
  const TempFolder folder;
  encode(folder.path() / "x", *kl(), Numbered(4), {});
  EXPECT_EQ(without(error_of([&] { encode(folder.path() / "x", *kl(), Numbered(4), {}); }), folder),
            "x: holds latents already; take them away, or name another folder");
}

TEST(Latents, OfAnEndlessSetNeedACount) {
  const TempFolder folder;
  EXPECT_EQ(error_of([&] { encode(folder.path() / "x", *kl(), Numbered(0), {}); }),
            "the data set is endless; a count must say how many of its images are encoded");
  EXPECT_FALSE(fs::exists(folder.path() / "x"));
  encode(folder.path() / "x", *kl(), Numbered(0), {.count = 5});
  EXPECT_EQ(read_latent_index((folder.path() / "x").string()).count(), 5);
}

TEST(Latents, AreTakenAwayWhereEncodingIsInterrupted) {
  const TempFolder folder;
  const auto autoencoder = kl();
  const auto stop = [](int64_t done, int64_t) { return done < 20; };
  EXPECT_THROW(encode_set(*autoencoder, "x", at::kCPU, Numbered(), {1, 8, 8}, folder.path() / "x", {.batch = 5, .shard = 10}, stop),
               Interrupted);
  EXPECT_TRUE(fs::is_empty(folder.path() / "x"));
}

TEST(Latents, OfOtherImagesAreRefused) {
  const TempFolder folder;
  encode(folder.path() / "x", *kl(), Numbered(4), {});
  const std::string error = error_of([&] { make<Dataset>("{type: latents}", Dataset::Context{{1, 16, 8}}, "path: " + folder.file("x")); });
  EXPECT_NE(error.find("were 1x8x8, the model wants 1x16x8"), std::string::npos) << error;
}

TEST(Latents, DamagedFilesAreRefused) {
  const TempFolder folder;
  encode(folder.path() / "x", *kl(), Numbered(4), {});
  const auto open = [&] { make<Dataset>("{type: latents}", Dataset::Context{{1, 8, 8}}, "path: " + folder.file("x")); };
  LatentIndex index = read_latent_index(folder.file("x"));
  index.shards[0].count = 5;
  write_latent_index(folder.file("x"), index);
  EXPECT_NE(error_of(open).find("does not hold the 5 moments of 8x4x4 that the index tells of"), std::string::npos) << error_of(open);
  folder.file("x/index.json", "{\"format\": 1}");
  EXPECT_NE(error_of(open).find("not an index of latents"), std::string::npos) << error_of(open);
}

TEST(Fingerprint, TellsWeightsApartAndNoScale) {
  const std::string one = fingerprint(*kl(1), "kl");
  EXPECT_TRUE(one.starts_with("kl-"));
  EXPECT_EQ(one, fingerprint(*kl(1), "kl"));
  EXPECT_EQ(one, fingerprint(*kl(1, "scale: 3, shift: 0.5"), "kl"));
  EXPECT_NE(one, fingerprint(*kl(2), "kl"));
  EXPECT_NE(one, fingerprint(*kl(1), "vq"));
  const auto touched = kl(1);
  Tensor(touched->weights().back().tensor).view({-1})[0] += 1e-6;
  EXPECT_NE(one, fingerprint(*touched, "kl"));
}

/// Encodes the first 64 images of the shapes with a checkpoint.
void encode_shapes(const std::string& checkpoint, const std::string& folder) {
  const ReadConfig read(tiny_autoencoder(1));
  const ModelFiles files(read.registry, Compute{}, "");
  const FirstStage stage = files.first_stage(checkpoint, {1, 16, 16}, at::kFloat);
  const auto data = read.config.train->data.make({{1, 16, 16}});
  encode_set(*stage.autoencoder, fingerprint(*stage.autoencoder, "kl"), at::kCPU, *data, {1, 16, 16}, folder, {.count = 64}, nullptr);
}

TEST(Latents, TrainAsEncodingOnTheFlyDoes) {
  const TempFolder folder;
  train_into(tiny_autoencoder(10), folder.file("first"));
  const std::string first = folder.file("first/model.safetensors");
  encode_shapes(first, folder.file("latents"));
  train_latent_model(tiny_latent_model(first, fmt::format("{{type: latents, path: {}}}", folder.file("latents"))), folder.file("cached"));
  EXPECT_EQ(read_card(folder.file("cached/model.safetensors")).step, 4);

  // The same images in the same batch: bit for bit.
  const ReadConfig read(tiny_latent_model(first));
  const ModelFiles files(read.registry, Compute{}, "");
  const Pipeline pipeline(read.config.model, Compute{}, 5, nullptr, files);
  const auto images = read.config.train->data.make({{1, 16, 16}});
  const auto cached = make<Dataset>("{type: latents}", Dataset::Context{{1, 16, 16}}, "path: " + folder.file("latents"));
  const Tensor pixels = at::empty({4, 1, 16, 16}, at::kFloat), moments = at::empty({4, 4, 8, 8}, at::kFloat);
  std::vector<Annotation> annotations;
  for (int64_t i = 0; i < 4; ++i) {
    images->read(i, uint64_t(i), {pixels.data_ptr<float>() + i * 256, 256});
    annotations.push_back(cached->read(i, 0, {moments.data_ptr<float>() + i * 256, 256}));
  }
  const at::NoGradGuard no_grad;  // the weights of this pipeline are not trained
  const auto loss = [&](const Tensor& given, bool encoded) {
    Training training{0, 10, read.config.train->objective->memory(*read.config.model.noise), &files};
    at::Generator random = at::detail::createCPUGenerator(9);
    return pipeline.loss(*read.config.train->objective, {given, annotations, encoded}, training, random);
  };
  const Tensor on_the_fly = loss(pixels, false), from_cache = loss(moments, true);
  EXPECT_TRUE(on_the_fly.equal(from_cache)) << on_the_fly << from_cache;
}

TEST(Latents, OfAnotherFirstStageAreRefused) {
  const TempFolder folder;
  train_into(tiny_autoencoder(3), folder.file("one"));
  train_into(tiny_autoencoder(4), folder.file("two"));
  encode_shapes(folder.file("one/model.safetensors"), folder.file("latents"));
  const std::string error = error_of([&] {
    train_latent_model(
        tiny_latent_model(folder.file("two/model.safetensors"), fmt::format("{{type: latents, path: {}}}", folder.file("latents"))),
        folder.file("run"));
  });
  EXPECT_NE(error.find("train.data was encoded by the first stage kl-"), std::string::npos) << error;
  EXPECT_NE(error.find("and model.autoencoder is kl-"), std::string::npos) << error;
}

TEST(Latents, AreNothingAnAutoencoderLearnsFrom) {
  const TempFolder folder;
  train_into(tiny_autoencoder(3), folder.file("one"));
  encode_shapes(folder.file("one/model.safetensors"), folder.file("latents"));
  std::string yaml = tiny_autoencoder(3);
  yaml.replace(yaml.find(grey_shapes), std::string(grey_shapes).size(), "{type: latents, path: " + folder.file("latents") + "}");
  EXPECT_EQ(error_of([&] { train_into(yaml, folder.file("two")); }), "train.data holds latents, and an autoencoder learns from images");
}

}  // namespace
}  // namespace brume::test
