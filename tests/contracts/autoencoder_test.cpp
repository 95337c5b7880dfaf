// Every first stage that can be made without files: shapes as announced, image i the same bits whatever the batch, latents that follow
// from the generator alone, scaling that undoes itself, sizes refused, and one pass of training.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include "brume/core/autoencoder.h"
#include "support/registry.h"

namespace brume::test {
namespace {

const Files no_files;

Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return at::randn(shape, random, at::TensorOptions().dtype(at::kFloat));
}

std::vector<int64_t> sizes_of(const ImageShape& shape, int64_t batch) { return {batch, shape.channels, shape.height, shape.width}; }

class AutoencoderContract : public testing::TestWithParam<Specimen> {
 protected:
  void SetUp() override {
    if (GetParam().name == "checkpoint") GTEST_SKIP() << "it is whatever its file holds";
  }
  /// As if out of a checkpoint: weights that come out of files are not asked for.
  static std::shared_ptr<Autoencoder> fresh(const std::string& more = "", at::ScalarType dtype = at::kFloat) {
    return make<Autoencoder>(GetParam().yaml, {.image = {3, 16, 16}, .seed = 5, .stored = &no_files, .dtype = dtype}, more);
  }
  static Tensor images(int64_t batch, const ImageShape& shape = {3, 16, 16}) {
    return (normal(sizes_of(shape, batch), 21) * 0.5).clamp(-1, 1);
  }
};

TEST_P(AutoencoderContract, ShapesAreAsAnnounced) {
  const at::NoGradGuard no_grad;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto autoencoder = fresh("", dtype);
    for (const ImageShape& shape : {ImageShape{3, 16, 16}, ImageShape{3, 24, 32}})
      for (const int64_t batch : {1, 3}) {
        const Tensor x = images(batch, shape), moments = autoencoder->encode_moments(x), z = autoencoder->encode(x);
        EXPECT_EQ(moments.sizes().vec(), sizes_of(autoencoder->moments(shape), batch));
        EXPECT_EQ(z.sizes().vec(), sizes_of(autoencoder->latent(shape), batch));
        const Tensor back = autoencoder->decode(z);
        EXPECT_EQ(back.sizes(), x.sizes());
        for (const Tensor& t : {moments, z, back}) {
          EXPECT_EQ(t.scalar_type(), at::kFloat);
          EXPECT_TRUE(at::isfinite(t).all().item<bool>());
        }
      }
  }
}

TEST_P(AutoencoderContract, ImageIDoesNotDependOnItsBatch) {
  const at::NoGradGuard no_grad;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto autoencoder = fresh("", dtype);
    const Tensor x = images(10), moments = autoencoder->encode_moments(x), z = autoencoder->encode(x), back = autoencoder->decode(z);
    for (const int64_t batch : {1, 2, 5})
      for (int64_t first = 0; first + batch <= 10; first += batch) {
        const auto part = [&](const Tensor& t) { return t.narrow(0, first, batch); };
        const std::string where = fmt::format("images {} to {}, {}", first, first + batch - 1, toString(dtype));
        ASSERT_TRUE(at::equal(autoencoder->encode_moments(part(x).clone()), part(moments))) << where;
        ASSERT_TRUE(at::equal(autoencoder->decode(part(z).clone()), part(back))) << where;
      }
  }
}

TEST_P(AutoencoderContract, LatentsFollowFromTheGeneratorAlone) {
  const at::NoGradGuard no_grad;
  const auto autoencoder = fresh();
  const Tensor x = images(2), moments = autoencoder->encode_moments(x);
  const auto drawn = [&](uint64_t seed) {
    at::Generator random = at::detail::createCPUGenerator(seed);
    return autoencoder->latents_of(moments, &random);
  };
  EXPECT_TRUE(at::equal(autoencoder->latents_of(moments, nullptr), autoencoder->encode(x)));
  EXPECT_TRUE(at::equal(drawn(3), drawn(3)));
  const bool draws = autoencoder->moments({3, 16, 16}).channels == 2 * autoencoder->latent({3, 16, 16}).channels;
  EXPECT_EQ(at::equal(drawn(3), drawn(4)), !draws) << "moments of twice the channels are a mean and a log variance";
}

TEST_P(AutoencoderContract, ScaleAndShiftUndoThemselves) {
  if (describe(builtins(), "autoencoder", GetParam().name).find("\n  scale ") == std::string::npos) GTEST_SKIP() << "it has no scale";
  const at::NoGradGuard no_grad;
  const auto plain = fresh("scale: 1, shift: 0"), scaled = fresh("scale: 0.5, shift: 0.25");
  const Tensor x = images(2), z = plain->encode(x);
  EXPECT_LE(((z - 0.25) * 0.5 - scaled->encode(x)).abs().max().item<double>(), 1e-6);
  EXPECT_LE((plain->decode(z) - scaled->decode((z - 0.25) * 0.5)).abs().max().item<double>(), 1e-4);
}

TEST_P(AutoencoderContract, SaysWhichSizesThereAre) {
  const auto autoencoder = fresh();
  const int64_t ratio = 16 / autoencoder->latent({3, 16, 16}).height;
  if (ratio == 1) GTEST_SKIP() << "every size will do";
  const std::string text = fmt::format("sides of images are multiples of {0}, and {1} by {2} are not; the nearest is {3} by {2}", ratio,
                                       5 * ratio - 1, 2 * ratio, 5 * ratio);
  EXPECT_EQ(error_of([&] { autoencoder->latent({3, 5 * ratio - 1, 2 * ratio}); }), text);
  EXPECT_EQ(error_of([&] { autoencoder->moments({3, 5 * ratio - 1, 2 * ratio}); }), text);
  const std::string read = error_of([&] {
    Deferred<Autoencoder>(read_plugin(builtins(), Autoencoder::kind, with(GetParam().yaml, ""))).check({{3, 5 * ratio - 1, 2 * ratio}});
  });
  EXPECT_NE(read.find(text), std::string::npos) << read;
}

TEST_P(AutoencoderContract, OnePassOfTraining) {
  const auto autoencoder = fresh();
  at::Generator random = at::detail::createCPUGenerator(1);
  if (const std::string refused = error_of([&] { autoencoder->reconstruct(images(2), random); }); refused != "no error") {
    EXPECT_EQ(refused, "there is nothing to train in this autoencoder");
    EXPECT_FALSE(autoencoder->last_layer().defined());
    return;
  }
  for (Weight& w : autoencoder->weights()) w.tensor.set_requires_grad(w.trainable);
  const Tensor x = images(2);
  const Autoencoder::Reconstruction r = autoencoder->reconstruct(x, random);
  EXPECT_EQ(r.images.sizes(), x.sizes());
  EXPECT_EQ(r.penalty.dim(), 0);
  EXPECT_GE(r.penalty.item<double>(), 0);
  EXPECT_EQ(r.latents.sizes().vec(), sizes_of(autoencoder->latent({3, 16, 16}), 2));
  ((r.images - x).abs().mean() + r.penalty).backward();
  for (const Weight& w : autoencoder->weights()) {
    ASSERT_EQ(w.tensor.grad().defined(), w.trainable) << w.name;
    EXPECT_TRUE(!w.trainable || at::isfinite(w.tensor.grad()).all().item<bool>()) << w.name;
  }
  bool found = false;
  for (const Weight& w : autoencoder->weights()) found = found || w.tensor.is_same(autoencoder->last_layer());
  EXPECT_TRUE(found) << "the last layer is not one of its weights";
  at::Generator a = at::detail::createCPUGenerator(7), b = at::detail::createCPUGenerator(7);
  EXPECT_TRUE(at::equal(autoencoder->reconstruct(x, a).images, autoencoder->reconstruct(x, b).images));
  const at::NoGradGuard no_grad;
  EXPECT_EQ(autoencoder->reconstruct(x.to(at::kBFloat16), a).images.scalar_type(), at::kBFloat16);
}

INSTANTIATE_TEST_SUITE_P(
    Registry, AutoencoderContract,
    testing::ValuesIn(
        specimens("autoencoder",
                  {"{type: kl, channels: 8, multipliers: [1, 2, 2, 1], blocks: 1, groups: 4, attention_resolutions: [8], dropout: 0.2}",
                   "{type: kl, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, middle_attention: false, quant_conv: false}",
                   "{type: vq, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, codes: 16}",
                   "{type: vq, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, codes: 16, codebook: ema, restart_after: 0}"})),
    readable);

}  // namespace
}  // namespace brume::test
