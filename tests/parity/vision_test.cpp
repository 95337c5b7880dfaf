// The features of CLIP and DINOv2 against PyTorch's own layers in float64, and Pillow's resizing (references/vision.py writes the numbers).
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "brume/core/features.h"
#include "brume/files/sha256.h"
#include "brume/files/text_file.h"
#include "brume/image/image.h"
#include "brume/image/pillow_resize.h"
#include "brume/train/feature_summary.h"
#include "brume/weights/safetensors.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "support/tokenizers.h"
#include "support/vision.h"

namespace brume::test {
namespace {

const nlohmann::json& reference() {
  static const auto json = nlohmann::json::parse(read_text(std::string(BRUME_SOURCE_DIR) + "/tests/parity/references/vision.json"));
  return json;
}

Tensor image(int64_t n) {
  const auto size = reference()["image_sizes"][size_t(n)].get<std::vector<int64_t>>();
  return vision_image(n, size[0], size[1]);
}

void expect_near(const Tensor& got, const nlohmann::json& wanted, const std::string& what) {
  const Tensor w = at::tensor(wanted.get<std::vector<double>>(), at::kDouble);
  ASSERT_EQ(got.numel(), w.numel()) << what;
  EXPECT_LE((got.flatten().to(at::kDouble) - w).abs().max().item<double>(), 1e-4 * w.abs().max().item<double>()) << what;
}

class Vision : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    for (const auto& [name, content] : small_tokenizers())
      if (name.starts_with("clip/")) {
        std::filesystem::create_directories(folder_->path() / "clip");
        folder_->file(name, content);
      }
    write_safetensors(folder_->file("clip.safetensors"), clip_tensors());
    write_safetensors(folder_->file("clip_transformers.safetensors"), transformers_clip_tensors());
  }
  static void TearDownTestSuite() { delete folder_; }
  static std::shared_ptr<const Features> clip(const std::string& file, const std::string& more) {
    return make<Features>("{type: clip_image, path: " + folder_->file(file) + "}", Features::Context{}, more);
  }
  static std::shared_ptr<const Features> dinov2(const NamedTensors& tensors, const std::string& more) {
    write_safetensors(folder_->file("dinov2.safetensors"), tensors);
    return make<Features>("{type: dinov2, path: " + folder_->file("dinov2.safetensors") + "}", Features::Context{}, more);
  }
  static std::string error(const std::string& yaml) {
    return without(error_of([&] { make<Features>(yaml, Features::Context{}); }), *folder_);
  }
  static TempFolder* folder_;
};
TempFolder* Vision::folder_ = nullptr;

TEST(PillowResize, GivesPillowsBytes) {
  for (const auto& c : reference()["pillow"]) {
    const Image resized = resize_as_pillow(to_image(image(c["image"])[0]), c["size"][0], c["size"][1]);
    EXPECT_EQ(sha256({reinterpret_cast<const char*>(resized.pixels.data()), resized.pixels.size()}), c["sha256"].get<std::string>()) << c;
  }
}

TEST(PillowResize, KeepsWhatIsOfTheSize) {
  const Image original = to_image(image(0)[0]);
  EXPECT_EQ(resize_as_pillow(original, original.height, original.width), original);
}

TEST_F(Vision, ClipIsPyTorchs) {
  for (const std::string activation : {"quick_gelu", "gelu"}) {
    const auto& wanted = reference()["clip"][activation];
    const auto features = clip("clip.safetensors", fmt::format("activation: {}, tokenizer: {}", activation, folder_->file("clip")));
    EXPECT_EQ(features->width(), 24);
    for (size_t n = 0; n < 3; ++n)
      expect_near(features->extract(image(int64_t(n))).features, wanted["images"][n], fmt::format("{} image {}", activation, n));
    ASSERT_TRUE(features->reads_captions());
    for (const auto& [caption, values] : wanted["captions"].items()) expect_near(features->embed({caption}), values, caption);
  }
}

TEST_F(Vision, TheNamesOfTransformersAreTheSameClip) {
  const std::string more = fmt::format("activation: gelu, tokenizer: {}", folder_->file("clip"));
  const auto a = clip("clip.safetensors", more), b = clip("clip_transformers.safetensors", more);
  EXPECT_TRUE(a->extract(image(0)).features.equal(b->extract(image(0)).features));
  EXPECT_TRUE(a->embed({"red cat", "cat"}).equal(b->embed({"red cat", "cat"})));
}

TEST_F(Vision, ACaptionsFeaturesDependOnItAlone) {
  const auto features = clip("clip.safetensors", fmt::format("activation: gelu, tokenizer: {}", folder_->file("clip")));
  const Tensor all = features->embed({"red cat", "a", "a red cat", "cat"});
  EXPECT_TRUE(features->embed({"a red cat"}).equal(all.narrow(0, 2, 1)));
}

TEST_F(Vision, AConfigurationBesideTheWeightsIsFollowed) {
  const TempFolder other;
  write_safetensors(other.file("model.safetensors"), transformers_clip_tensors());
  const std::string yaml = "{type: clip_image, path: " + other.file("model.safetensors") + "}";
  EXPECT_NE(error_of([&] { make<Features>(yaml, Features::Context{}); }).find("does not say whether"), std::string::npos);
  other.file("config.json", R"({"vision_config": {"hidden_act": "gelu", "num_attention_heads": 2}})");
  const Tensor got = make<Features>(yaml, Features::Context{})->extract(image(0)).features;
  EXPECT_TRUE(got.equal(clip("clip.safetensors", "activation: gelu")->extract(image(0)).features));
}

TEST_F(Vision, Dinov2IsPyTorchs) {
  for (const auto& c : reference()["dinov2"]) {
    const auto features =
        dinov2(dinov2_tensors(c["registers"], c["gated"]), fmt::format("resize: {}, size: 56", c["resize"].get<std::string>()));
    for (size_t n = 0; n < 3; ++n)
      expect_near(features->extract(image(int64_t(n))).features, c["images"][n],
                  fmt::format("{} with {} registers, image {}", c["resize"].get<std::string>(), c["registers"].get<int64_t>(), n));
  }
}

TEST_F(Vision, TheNamesOfTransformersAreTheSameDinov2) {
  for (const auto& [registers, gated] : {std::pair<int64_t, bool>{0, false}, {4, false}, {0, true}}) {
    const Tensor hub = dinov2(dinov2_tensors(registers, gated), "size: 56")->extract(image(1)).features;
    EXPECT_TRUE(dinov2(transformers_dinov2_tensors(registers, gated), "size: 56")->extract(image(1)).features.equal(hub)) << registers;
  }
}

TEST_F(Vision, NoiseMovesImagesAwayFromThemselves) {
  const auto features = clip("clip.safetensors", "activation: gelu");
  const Tensor clean = at::cat([] {
    std::vector<Tensor> all;
    for (int64_t n = 0; n < 80; ++n) all.push_back(vision_image(n, 32, 32).roll({n % 7, n % 11}, {2, 3}) * (0.2 + 0.01 * double(n)));
    return all;
  }());
  const Tensor noise = at::randn(clean.sizes(), at::detail::createCPUGenerator(1), at::TensorOptions());
  const auto summary = [&](double sigma, int64_t batch) {
    FeatureSummarizer summarizer(*features, {.statistics = true, .rows = true}, "a set");
    for (const Tensor& part : (clean + noise * sigma).split(batch)) summarizer.add(part);
    return summarizer.summary();
  };
  const FeatureSummary real = summary(0, 80);
  const auto figure = [&](const std::string& metric, const FeatureSummary& set) {
    return make<SetMetric>(metric)->score(set, real)[0].value;
  };
  double fid = figure("fid", summary(0, 7)), precision = figure("precision_recall", summary(0, 7));
  EXPECT_NEAR(fid, 0, 1e-6);
  EXPECT_EQ(precision, 1);
  for (const double sigma : {0.1, 0.2, 0.4}) {
    const FeatureSummary set = summary(sigma, 32);
    EXPECT_GT(figure("fid", set), fid) << sigma;
    EXPECT_LE(figure("precision_recall", set), precision) << sigma;
    fid = figure("fid", set), precision = figure("precision_recall", set);
    EXPECT_EQ(figure("fid", summary(sigma, 11)), fid) << sigma;
  }
  EXPECT_LT(precision, 0.9);
}

TEST_F(Vision, WeightsOfAnotherNetworkAreListed) {
  write_safetensors(folder_->file("d.safetensors"), dinov2_tensors(0, false));
  const std::string file = folder_->file("d.safetensors");
  const std::string clip = error("{type: clip_image, activation: gelu, path: " + file + "}");
  EXPECT_NE(clip.find("d.safetensors: lacks the tensor 'vision_model.embeddings.class_embedding' [768]"), std::string::npos) << clip;
  EXPECT_NE(clip.find("d.safetensors: has a tensor 'blocks.0.ls1.gamma' that the model does not"), std::string::npos) << clip;
  NamedTensors some = dinov2_tensors(0, false);
  some.erase(some.begin() + 8);
  some.push_back({"head.weight", some[0].tensor});
  write_safetensors(folder_->file("d.safetensors"), some);
  const std::string dinov2 = error("{type: dinov2, path: " + file + "}");
  EXPECT_NE(dinov2.find("d.safetensors: lacks the tensor 'blocks.0.attn.qkv.bias' [384]"), std::string::npos) << dinov2;
  EXPECT_NE(dinov2.find("d.safetensors: has a tensor 'head.weight' that the model does not"), std::string::npos) << dinov2;
  EXPECT_NE(error("{type: dinov2, size: 60, path: " + file + "}"), "");
}

}  // namespace
}  // namespace brume::test
