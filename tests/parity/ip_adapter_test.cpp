// IP-Adapter against tencent-ailab's modules (ImageProjModel, MLPProjModel, Resampler, IPAttnProcessor), whose weights are those made here,
// and its laws: nothing added at strength 0 and outside a mask; the unconditional estimate does not see the image; an image that is made
// does not depend on its batch.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>

#include "brume/config/plugin_loader.h"
#include "brume/core/control.h"
#include "brume/core/features.h"
#include "brume/model.h"
#include "brume/nn/blocks/tapped_attention.h"
#include "brume/nn/ops/ops.h"
#include "brume/weights/safetensors.h"
#include "support/expect_close.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "support/vision.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;

using Shapes = std::map<std::string, std::vector<int64_t>>;

/// cos(factor j^2 + shift).
Tensor chirp(int64_t count, double factor, double shift) {
  const Tensor j = at::arange(count, at::kDouble);
  return (j * factor * j + shift).cos();
}

/// Element j of the t-th tensor by name is 2 cos(0.37 j^2 + 1.1 t) / sqrt(inputs per output).
NamedTensors filled(const Shapes& shapes) {
  NamedTensors all;
  for (const auto& [name, shape] : shapes) {
    int64_t count = 1;
    for (const int64_t s : shape) count *= s;
    const double inputs = shape.size() > 1 ? double(count / shape[0]) : 16;
    all.push_back({name, (chirp(count, 0.37, 1.1 * double(all.size())) * (2 / std::sqrt(inputs))).view(shape).to(at::kFloat)});
  }
  return all;
}

void add_linear(Shapes& s, const std::string& name, int64_t in, int64_t out, bool bias = true) {
  s[name + ".weight"] = {out, in};
  if (bias) s[name + ".bias"] = {out};
}
void add_norm(Shapes& s, const std::string& name, int64_t width) { s[name + ".weight"] = s[name + ".bias"] = {width}; }

constexpr int64_t token = 32;  ///< width of the tokens

/// The keys and values of attentions of these widths.
Shapes attentions(const std::vector<int64_t>& widths) {
  Shapes s;
  for (size_t i = 0; i < widths.size(); ++i)
    for (const char* part : {"to_k_ip", "to_v_ip"})
      add_linear(s, fmt::format("ip_adapter.{}.{}", 2 * i + 1, part), token, widths[i], false);
  return s;
}
Shapes plain(Shapes s) {
  add_linear(s, "image_proj.proj", 24, 4 * token);
  add_norm(s, "image_proj.norm", token);
  return s;
}
Shapes full(Shapes s) {
  add_linear(s, "image_proj.proj.0", 40, 40);
  add_linear(s, "image_proj.proj.2", 40, token);
  add_norm(s, "image_proj.proj.3", token);
  return s;
}
Shapes plus(Shapes s) {
  s["image_proj.latents"] = {1, 3, 48};
  add_linear(s, "image_proj.proj_in", 40, 48);
  add_linear(s, "image_proj.proj_out", 48, token);
  add_norm(s, "image_proj.norm_out", token);
  for (int i = 0; i < 2; ++i) {
    const std::string a = fmt::format("image_proj.layers.{}.0.", i), f = fmt::format("image_proj.layers.{}.1.", i);
    add_norm(s, a + "norm1", 48), add_norm(s, a + "norm2", 48), add_norm(s, f + "0", 48);
    add_linear(s, a + "to_q", 48, 128, false), add_linear(s, a + "to_kv", 48, 256, false), add_linear(s, a + "to_out", 128, 48, false);
    add_linear(s, f + "1", 48, 96, false), add_linear(s, f + "3", 96, 48, false);
  }
  return s;
}

/// An image encoder that sees the first value of an image.
class Seen final : public Features {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  Seen(const Options&, const Context&) {}
  std::string name() const override { return "seen"; }
  ImageShape input() const override { return {3, 0, 0}; }
  std::string preprocessing() const override { return "none"; }
  int64_t width() const override { return 24; }
  Output extract(const Tensor& images) const override { return {first(images) * chirp(24, 0.3, 1).to(at::kFloat), {}}; }
  Tensor tokens(const Tensor& images) const override {
    return (images.defined() ? first(images) : at::zeros({1, 1})).unsqueeze(2) * chirp(200, 0.3, 1).to(at::kFloat).view({1, 5, 40});
  }

 private:
  static Tensor first(const Tensor& images) { return images.flatten(1).narrow(1, 0, 1); }
};

struct Wanted {
  double sum, size;  ///< of the values, of their absolutes
  std::vector<double> first;
};

class IPAdapterFile : public testing::Test {
 protected:
  IPAdapterFile() {
    register_builtins(registry_);
    registry_.add<Features, Seen>("seen", "an encoder of this test");
    network_ = create_deferred<Network>(registry_, parse_yaml("{type: unet, channels: 32, multipliers: [1, 2], blocks: 1, heads: 4, "
                                                              "attention_resolutions: [8, 4], transformer: {depth: [1]}}",
                                                              "test"))
                   .make({.input = {4, 8, 8}, .out_channels = 4, .context_width = token});
  }
  std::shared_ptr<const OpenControl> open(const NamedTensors& tensors, const std::string& more = ", encoder: seen",
                                          int64_t context = token) {
    const std::string path = folder_.file(fmt::format("{}.safetensors", files_++));
    write_safetensors(path, tensors);
    return create<Control>(registry_, parse_yaml(fmt::format("{{type: ip_adapter, file: '{}'{}}}", path, more), "test"))
        ->open({.network = *network_, .latent = {4, 8, 8}, .context_width = context, .ratio = 8});
  }
  static Tensor sine(double factor, double shift, int64_t rows) {
    return (at::arange(rows * token, at::kDouble) * factor + shift).sin().view({1, rows, token}).to(at::kFloat);
  }
  static Tensor heads(const Tensor& x) { return nn::split_heads(x, 4); }
  static Tensor words() {
    return nn::merge_heads(nn::attention(heads(sine(0.21, 0, 16)), heads(sine(0.17, 0.5, 7)), heads(sine(0.17, 0.5, 7))));
  }
  static Taps tapped(const OpenControl& control, const std::vector<Tensor>& encoded, const Tensor& mask = {}, Taps taps = {}) {
    const Tensor x = at::zeros({1, 4, 4, 4});
    control.add_to(taps, {.input = x, .c_noise = x, .condition = {}, .control = encoded, .mask = mask, .scale = 0.6});
    return taps;
  }
  /// attention(q, words, words) at a block.
  static Tensor attended(const Taps& taps, const std::string& block) {
    const Tensor w = heads(sine(0.17, 0.5, 7));
    return nn::merge_heads(taps.attention.at(block + ".transformer_blocks.0.attn2")(heads(sine(0.21, 0, 16)), w, w));
  }
  static void expect(const Tensor& got, const Wanted& wanted) {
    const Tensor f = got.contiguous().to(at::kDouble);
    EXPECT_NEAR(f.sum().item<double>(), wanted.sum, 1e-5 * wanted.size);
    EXPECT_NEAR(f.abs().sum().item<double>(), wanted.size, 1e-5 * wanted.size);
    for (size_t j = 0; j < wanted.first.size(); ++j) EXPECT_NEAR(f.flatten()[int64_t(j)].item<double>(), wanted.first[j], 2e-5);
  }
  /// At the first attention of the encoder, and at the third of the decoder.
  static void expect(const OpenControl& control, const std::vector<Tensor>& encoded, const Wanted& first, const Wanted& later) {
    const Taps taps = tapped(control, encoded);
    EXPECT_EQ(taps.attention.size(), 7u);
    expect(attended(taps, "input_blocks.1.1"), first);
    expect(attended(taps, "output_blocks.2.1"), later);
  }
  /// Of one image, or of none.
  static std::vector<Tensor> row(std::vector<Tensor> encoded, int64_t n) {
    for (Tensor& t : encoded) t = t.narrow(0, n, 1).contiguous();
    return encoded;
  }
  const Tensor white_ = at::ones({1, 3, 4, 4});
  const Shapes layers_ = attentions({32, 64, 64, 64, 32, 32, 64});
  TempFolder folder_;
  int files_ = 0;
  Registry registry_;
  std::shared_ptr<Network> network_;
};

TEST_F(IPAdapterFile, PlainIsTencents) {
  const auto control = open(filled(plain(layers_)));
  expect(*control, row(control->encode(white_), 0), {36.598967, 325.280525, {2.008188, 1.029367, 0.415115, 0.322707}},
         {85.879429, 314.744456, {2.509803, 0.719004, 0.481146, 0.574064}});
  expect(*control, row(control->encode(white_), 1), {40.718143, 324.356672, {1.951448, 0.808105, 0.387904, 0.448521}},
         {87.783937, 315.668239, {2.489464, 0.584896, 0.721036, 0.680731}});
}

TEST_F(IPAdapterFile, PlusIsTencents) {
  const auto control = open(filled(plus(layers_)));
  expect(*control, row(control->encode(white_), 0), {36.055343, 298.145882, {-0.117569, -0.379213, 0.592744, 0.885211}},
         {-21.299298, 318.673759, {-1.140251, -0.267645, 0.382376, 1.068622}});
  expect(*control, row(control->encode(white_), 1), {38.552089, 290.923407, {0.006534, 0.078622, 0.555716, 0.711357}},
         {-10.891842, 308.867941, {-1.03503, 0.346292, 0.317683, 0.890306}});
}

TEST_F(IPAdapterFile, FullIsTencents) {
  const auto control = open(filled(full(layers_)));
  expect(*control, row(control->encode(white_), 0), {-10.640269, 295.161402, {-1.027384, 0.998458, 1.020274, 0.222123}},
         {3.070827, 284.354120, {-0.584383, 0.731936, 0.945089, 0.424198}});
  expect(*control, row(control->encode(white_), 1), {-15.992357, 291.596306, {-0.864756, 1.018819, 1.220604, 0.197743}},
         {-0.426883, 285.739024, {-0.325187, 0.875896, 1.005228, 0.339149}});
}

TEST_F(IPAdapterFile, TwoAddUpAndAMaskLimits) {
  const auto control = open(filled(plain(layers_)));
  const std::vector<Tensor> encoded = row(control->encode(white_), 0);
  const std::string block = "input_blocks.1.1";
  const Taps one = tapped(*control, encoded);
  const Tensor with = attended(one, block), image = with - words();
  expect_close(attended(tapped(*control, encoded, {}, one), block), words() + image * 2, 1e-6, "twice");
  EXPECT_TRUE(at::equal(attended(tapped(*control, encoded, at::ones({1, 1, 32, 32})), block), with));
  Tensor half = at::ones({1, 1, 32, 32});
  half.narrow(3, 0, 16).zero_();  // of 4 x 4 places, the left two of each row
  const Tensor limited = attended(tapped(*control, encoded, half), block);
  for (int64_t n = 0; n < 16; ++n) EXPECT_TRUE(at::equal(limited[0][n], (n % 4 < 2 ? words() : with)[0][n])) << n;
}

TEST_F(IPAdapterFile, PartsHaveTheirStrength) {
  const auto control = open(filled(plain(layers_)), ", encoder: seen, layers: {up: 0, out2: 0.5, mid: 0}");
  const std::vector<Tensor> encoded = row(control->encode(white_), 0);
  const Taps taps = tapped(*control, encoded), all = tapped(*open(filled(plain(layers_))), encoded);
  EXPECT_EQ(taps.attention.size(), 3u);
  EXPECT_TRUE(at::equal(attended(taps, "input_blocks.1.1"), attended(all, "input_blocks.1.1")));
  expect_close(attended(taps, "output_blocks.2.1") * 2, attended(all, "output_blocks.2.1") + words(), 1e-6, "half");
}

TEST_F(IPAdapterFile, OthersAreRefused) {
  const auto refusal = [&](const Shapes& shapes, const std::string& more, int64_t context = token) {
    return without(error_of([&] { open(filled(shapes), more, context)->encode(white_); }), folder_);
  };
  const auto has = [](const std::string& text, const std::string& part) { EXPECT_NE(text.find(part), text.npos) << text; };
  has(refusal(plain(layers_), ""), "needs its image encoder, a CLIP whose embeddings have the width 24;");
  Shapes of_h = layers_;
  add_linear(of_h, "image_proj.proj", 1024, 4 * token);
  add_norm(of_h, "image_proj.norm", token);
  has(refusal(of_h, ""), "needs its image encoder, OpenCLIP's ViT-H-14, usually in models/image_encoder");
  has(refusal(of_h, ", encoder: seen"), "the image encoder's embeddings have the width 24, and it was trained with OpenCLIP's ViT-H-14");
  has(refusal(plain(layers_), ", encoder: seen", 768), "this IP-Adapter is of a model with tokens of width 32, the model is SD 1");
  has(refusal(plain(attentions({32, 64})), ", encoder: seen"), "is for 2 attentions to words, and the model has 7");
  has(refusal(plain(attentions({64, 64, 64, 64, 32, 32, 64})), ", encoder: seen"), "'ip_adapter.1.to_k_ip' has 64 rows");
  has(refusal(plain(layers_), ", encoder: seen, layers: {upp: 1}"), "no attention to words is in 'upp'");
  has(refusal(plain(layers_), ", encoder: seen, layers: {up: high}"), "up = 'high' is no number");
  Shapes face = plain(layers_);
  face["ip_adapter.1.to_k_lora.down.weight"] = {4, 4};
  has(refusal(face, ", encoder: seen"), "has the tensors ip_adapter.1.to_k_lora.down.weight");
  face["ip_adapter.0.to_q_lora.down.weight"] = {4, 4};
  has(refusal(face, ", encoder: seen"), "is an IP-Adapter of faces (FaceID), which sees the embedding of a face by InsightFace");
}

TEST(ClipImageTokens, AreThoseBeforeTheLastBlock) {
  const TempFolder folder;
  write_safetensors(folder.file("model.safetensors"), transformers_clip_tensors());
  folder.file("config.json", R"({"model_type": "clip_vision_model", "hidden_act": "gelu", "num_attention_heads": 2})");
  const auto clip = make<Features>("{type: clip_image, path: " + folder.path().string() + "}", Features::Context{});
  const auto expect = [](const Tensor& got, double sum, double size, const std::vector<double>& first) {
    ASSERT_EQ(got.sizes(), at::IntArrayRef({1, 17, 128}));
    EXPECT_NEAR(got.sum().item<double>(), sum, 1e-5 * size);
    EXPECT_NEAR(got.abs().sum().item<double>(), size, 1e-5 * size);
    for (size_t j = 0; j < first.size(); ++j) EXPECT_NEAR(got.flatten()[int64_t(j)].item<double>(), first[j], 1e-4);
  };
  expect(clip->tokens(vision_image(0, 32, 32)), 9.819147, 2194.379813, {-0.808315, -1.472166, -1.0861, 1.893667});
  expect(clip->tokens({}), 8.577450, 2318.977929, {-0.686191, -0.692098, -1.335953, 1.643657});
}

class IPAdapterRun : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF("pipe/tiny_sd/unet/config.json");
    OpenOptions o;
    o.precision = "fp32";
    model_ = std::make_unique<Model>(Model::open(ref_path("pipe/tiny_sd").string(), o));
    write_safetensors(folder_.file("adapter.safetensors"), filled(plain(attentions({32, 32, 32, 64}))));
    folder_.file("clip/config.json", R"({"model_type": "clip_vision_model", "hidden_act": "gelu", "num_attention_heads": 2})");
    write_safetensors(folder_.file("clip/model.safetensors"), transformers_clip_tensors());
    for (int64_t n = 0; n < 2; ++n)
      write_safetensors(folder_.file(fmt::format("{}.safetensors", n)), {{"image", vision_image(n, 40, 48) / 2 + 0.5}});
  }
  ImageRequest run(double cfg = 4) const { return {.prompts = {"a lake"}, .count = 3, .seed = 3, .steps = 3, .cfg = cfg}; }
  ImageRequest prompted(const std::string& numbers = "", int image = 0, double cfg = 4) const {
    ImageRequest r = run(cfg);
    r.controls = {folder_.file("adapter.safetensors") + numbers};
    r.control_images = {folder_.file(fmt::format("{}.safetensors", image))};
    r.image_encoder = folder_.file("clip");
    return r;
  }
  TempFolder folder_;
  std::unique_ptr<Model> model_;
};

TEST_F(IPAdapterRun, NothingIsAddedAtStrengthZero) {
  const Tensor plain = model_->sample(run());
  EXPECT_TRUE(at::equal(model_->sample(prompted(":0")), plain));
  EXPECT_FALSE(at::equal(model_->sample(prompted()), plain));
}

TEST_F(IPAdapterRun, TheUnconditionalEstimateDoesNotSeeTheImage) {
  const Tensor a = model_->sample(prompted("", 0, 0)), b = model_->sample(prompted("", 1, 0));
  EXPECT_TRUE(at::equal(a, b)) << "cfg 0 is the unconditional estimate";
  EXPECT_FALSE(at::equal(a, model_->sample(run(0)))) << "which attends to no image";
  EXPECT_FALSE(at::equal(model_->sample(prompted("", 0)), model_->sample(prompted("", 1))));
}

TEST_F(IPAdapterRun, AnImageDependsOnItselfAlone) {
  const Tensor all = model_->sample(prompted());
  ImageRequest r = prompted();
  r.batch = 2;
  EXPECT_TRUE(at::equal(model_->sample(r), all));
}

TEST_F(IPAdapterRun, TheEncoderIsAskedFor) {
  ImageRequest r = prompted();
  r.image_encoder.clear();
  const std::string missing = error_of([&] { model_->sample(r); });
  EXPECT_NE(missing.find("needs its image encoder"), missing.npos) << missing;
  const auto said = [&](const std::string& encoder) {
    r.image_encoder = folder_.file(encoder);
    return without(error_of([&] { model_->sample(r); }), folder_);
  };
  const std::string asked =
      "adapter.safetensors: needs its image encoder, a CLIP whose embeddings have the width 24; "
      "`encoder: {type: clip_image, path: FILE}` names it\n";
  const auto ends = [&](const std::string& text, const std::string& reason) {
    EXPECT_NE(text.find(asked), text.npos) << text;
    EXPECT_TRUE(text.ends_with(reason)) << text;
  };
  ends(said("clipp"), "clipp: cannot be opened: No such file or directory; did you mean 'clip'?");
  fs::create_directory(folder_.file("empty"));
  ends(said("empty"), "path: empty holds no model.safetensors and no pytorch_model.bin");
  fs::resize_file(folder_.file("clip/model.safetensors"), fs::file_size(folder_.file("clip/model.safetensors")) - 100);
  const std::string cut = said("clip");
  EXPECT_NE(cut.find(asked), cut.npos) << cut;
  EXPECT_NE(cut.find("clip/model.safetensors: is truncated"), cut.npos) << cut;
  ImageRequest other = run();
  other.image_encoder = folder_.file("clip");
  const std::string idle = error_of([&] { model_->sample(other); });
  EXPECT_NE(idle.find("image_encoder: there is no control"), idle.npos) << idle;
}

}  // namespace
}  // namespace brume::test
