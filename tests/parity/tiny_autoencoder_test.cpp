// Parity with a real autoencoder of the TAESD family (shared/weights/taef2): its golden image, latent and reconstruction, from both of
// the formats it is published in; and a model trained in its latent space, which one file then holds.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>

#include <filesystem>

#include "brume/core/autoencoder.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/nn/ops/isa.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/parity.h"
#include "support/refs.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

std::string weights(const std::string& file) { return ref_path("../weights/taef2/" + file).string(); }
bool there() { return std::filesystem::exists(weights("taef2_encoder.pth")); }
#define BRUME_NEED_TAEF2() \
  if (!there()) GTEST_SKIP() << "shared/weights/taef2 is not there"

std::string yaml(const std::string& extension) {
  return fmt::format("{{type: tiny, encoder: {}, decoder: {}, latent_channels: 32, middle_norm: true}}",
                     weights("taef2_encoder." + extension), weights("taef2_decoder." + extension));
}

std::shared_ptr<Autoencoder> open(const std::string& text, const ImageShape& image) {
  const Recipe recipe = read_plugin(builtins(), Autoencoder::kind, parse_yaml(text, "test.yaml"));
  return Deferred<Autoencoder>(recipe).make({image});
}

Tensor golden(const std::string& name) { return SafetensorsFile(weights("taef2.golden.safetensors")).tensor(name); }

class TinyAutoencoder : public testing::TestWithParam<const char*> {};

TEST_P(TinyAutoencoder, GivesTheGoldenNumbers) {
  BRUME_NEED_TAEF2();
  const at::NoGradGuard no_grad;
  const auto autoencoder = open(yaml(GetParam()), {3, 128, 128});
  EXPECT_EQ(autoencoder->latent({3, 128, 128}), (ImageShape{32, 16, 16}));
  const Tensor image = golden("image_kodim23_crop_y128_x128_128px"), latent = golden("latent"), decoded = golden("decoded_unclamped");
  const auto worst = [](const Tensor& got, const Tensor& wanted) {
    return (got - wanted).abs().max().item<double>() / std::max(1.0, wanted.abs().max().item<double>());
  };
  EXPECT_LT(worst(autoencoder->encode(image * 2 - 1), latent), 1e-4);
  EXPECT_LT(worst((autoencoder->decode(latent) + 1) / 2, decoded), 1e-4);
}
INSTANTIATE_TEST_SUITE_P(Formats, TinyAutoencoder, testing::Values("pth", "safetensors"));

TEST(TinyAutoencoderRules, SidesAndFiles) {
  const auto check = [](const std::string& text, const ImageShape& image) {
    return error_of(
        [&] { Deferred<Autoencoder>(read_plugin(builtins(), Autoencoder::kind, parse_yaml(text, "test.yaml"))).check({image}); });
  };
  EXPECT_NE(check("tiny", {3, 64, 64}).find("the files of their weights are missing"), std::string::npos);
  EXPECT_NE(check("{type: tiny, encoder: a, decoder: b}", {3, 60, 64})
                .find("sides of images are multiples of 8, and 60 by 64 are not; the nearest is 64 by 64"),
            std::string::npos);
  EXPECT_NE(error_of([] { open("{type: tiny, encoder: /no/such.pth, decoder: b}", {3, 64, 64}); }).find("/no/such.pth"), std::string::npos);
}

TEST(TinyAutoencoderRules, ACheckpointHoldsBothStages) {
  BRUME_NEED_TAEF2();
  struct Model {
    ModelOptions model;
    void declare(Fields& f) { f.section("model", model, "the model"); }
  };
  const auto read = [](const std::string& first_stage) {
    Model m;
    read_config(builtins(),
                parse_yaml("model: {image: {height: 64, width: 64}, autoencoder: " + first_stage +
                               ", network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4}, noise: cosine}",
                           "test.yaml"),
                m);
    return m.model;
  };
  const Pipeline trained(read(yaml("safetensors")), {});
  EXPECT_EQ(trained.latent(), (ImageShape{32, 8, 8}));
  const TempFolder dir;
  const std::string file = (dir.path() / "model.safetensors").string();
  save_model(file, trained.weights(), {});
  const Files none;
  // Elsewhere, without the files of the autoencoder.
  const Pipeline opened(read("{type: tiny, encoder: gone.pth, decoder: gone.pth, latent_channels: 32, middle_norm: true}"), {}, 1, &none);
  load_weights(file, opened.weights());
  SampleRequest request;
  request.images.resize(2);
  SampleOptions options;
  struct Sample {
    SampleOptions& o;
    void declare(Fields& f) { o.declare(f); }
  } sample{options};
  read_config(builtins(), parse_yaml("{steps: 2}", "test.yaml"), sample);
  const Tensor images = sample_images(opened, request, options);
  EXPECT_EQ(images.sizes(), at::IntArrayRef({2, 3, 64, 64}));
  const Tensor wanted = sample_images(trained, request, options);
  if (nn::isa() == nn::Isa::reference)  // LibTorch goes by how weights lie in memory
    EXPECT_LT((images - wanted).abs().max().item<float>(), 1e-5);
  else
    EXPECT_TRUE(at::equal(images, wanted));
}

}  // namespace
}  // namespace brume::test
