// The laws of the first stages: the KL term and its gradient in closed form, the straight-through gradient, codebooks that become the
// means of their clusters, dead codes that live again.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>

#include "brume/core/autoencoder.h"
#include "brume/nn/blocks/codebook.h"
#include "support/registry.h"

namespace brume::test {
namespace {

using Learning = nn::CodebookOptions::Learning;

at::Generator generator(uint64_t seed) { return at::detail::createCPUGenerator(seed); }

Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  at::Generator random = generator(seed);
  return at::randn(shape, random, at::TensorOptions().dtype(at::kFloat));
}

Tensor weight(const std::vector<Weight>& weights, const std::string& name) {
  for (const Weight& w : weights)
    if (w.name == name) return w.tensor;
  throw std::logic_error("no weight " + name);
}

double largest(const Tensor& t) { return t.abs().max().item<double>(); }

// ---- kl

class KlTerm : public testing::Test {
 protected:
  std::shared_ptr<Autoencoder> kl = make<Autoencoder>(
      "{type: kl, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, latent_channels: 3, kl_weight: 0.5, scale: 7, shift: 2}",
      {.image = {3, 8, 8}, .seed = 2});
  Tensor images = normal({3, 3, 8, 8}, 1);
  Autoencoder::Reconstruction reconstruct() const {
    at::Generator random = generator(4);
    return kl->reconstruct(images, random);
  }
};

TEST_F(KlTerm, IsTheClosedForm) {
  const at::NoGradGuard no_grad;
  weight(kl->weights(), "quant_conv.bias").add_(at::tensor({0.5, -1.0, 2.0, 0.5, -1.0, -2.0}, at::kFloat));
  const Tensor moments = kl->encode_moments(images).to(at::kDouble);
  double sum = 0;  // KL of two normal distributions, one of them N(0, 1): log(1/s) + (s^2 + m^2) / 2 - 1/2
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t j = 0; j < 3; ++j)
      for (int64_t k = 0; k < 16; ++k) {
        const double m = moments[i][j].flatten()[k].item<double>(), s = std::exp(moments[i][3 + j].flatten()[k].item<double>() / 2);
        sum += -std::log(s) + (s * s + m * m) / 2 - 0.5;
      }
  EXPECT_NEAR(reconstruct().penalty.item<double>(), 0.5 * sum / 3, 1e-4);
}

// d KL / d mean = mean and d KL / d logvar = (exp(logvar) - 1) / 2; the bias of the last convolution adds to every position.
TEST_F(KlTerm, ItsGradientIsTheClosedForm) {
  Tensor bias = weight(kl->weights(), "quant_conv.bias");
  bias.set_requires_grad(true);
  reconstruct().penalty.backward();
  const at::NoGradGuard no_grad;
  const Tensor moments = kl->encode_moments(images), mean = moments.narrow(1, 0, 3), logvar = moments.narrow(1, 3, 3);
  EXPECT_LE(largest(bias.grad().narrow(0, 0, 3) - mean.sum({0, 2, 3}) * (0.5 / 3)), 1e-4);
  EXPECT_LE(largest(bias.grad().narrow(0, 3, 3) - (logvar.exp() - 1).sum({0, 2, 3}) * (0.25 / 3)), 1e-4);
}

TEST_F(KlTerm, LatentsOfTrainingAreNotScaled) {
  const at::NoGradGuard no_grad;
  at::Generator random = generator(4);
  const Tensor scaled = kl->latents_of(kl->encode_moments(images), &random);
  EXPECT_LE(largest((reconstruct().latents - 2) * 7 - scaled), 1e-5);
}

TEST_F(KlTerm, TheLogVarianceStaysWithinWhatItsExponentialBears) {
  const at::NoGradGuard no_grad;
  Tensor bias = weight(kl->weights(), "quant_conv.bias");
  for (const double extreme : {-1000.0, 1000.0}) {
    bias.narrow(0, 3, 3).fill_(extreme);
    const Tensor logvar = kl->encode_moments(images).narrow(1, 3, 3);
    EXPECT_TRUE(at::equal(logvar, at::full({3, 3, 4, 4}, extreme < 0 ? -30.0 : 20.0)));
  }
}

TEST(FirstStageOptions, WhatIsRefused) {
  const auto check = [](const std::string& yaml, const ImageShape& image) {
    return error_of(
        [&] { Deferred<Autoencoder>(read_plugin(builtins(), Autoencoder::kind, parse_yaml(yaml, "test.yaml"))).check({image}); });
  };
  EXPECT_EQ(check("{type: vq, multipliers: [1, 1, 1]}", {3, 30, 32}),
            "test.yaml:1:1: sides of images are multiples of 4, and 30 by 32 are not; the nearest is 32 by 32");
  EXPECT_EQ(check("{type: kl, attention_resolutions: [4]}", {3, 32, 32}),
            "test.yaml:1:1: attention_resolutions: no level has height 4; the levels have 32, 16, 8");
  EXPECT_EQ(check("{type: kl, channels: 48}", {3, 32, 32}), "test.yaml:1:1: groups: must divide the channels of every level");
}

// ---- codebooks

struct Book {
  nn::Builder build{3};
  nn::Codebook codebook;
  Book(const nn::CodebookOptions& options, int64_t width) : codebook(build, options, width) {}
  Tensor codes() const { return weight(build.weights(), "embedding.weight"); }
  /// One pass and one update.
  void train(const Tensor& z, uint64_t seed) const {
    codebook.quantise(z);
    at::Generator random = generator(seed);
    codebook.update(random);
  }
};

TEST(CodebookSearch, FindsTheNearestHoweverItIsCut) {
  for (const int64_t codes : {2, 300, 65536}) {  // of the last, 64 positions at a time
    const Book book({.codes = codes}, 3);
    book.codes().copy_(normal({codes, 3}, 8));
    const Tensor z = normal({2, 3, 16, 10}, 9), found = book.codebook.nearest(z);
    EXPECT_EQ(found.sizes(), at::IntArrayRef({2, 16, 10}));
    const Tensor got = (book.codebook.vectors(found) - z).square().sum(1);
    for (int64_t i = 0; i < 2; ++i)
      for (int64_t y = 0; y < 16; y += 5)
        for (int64_t x = 0; x < 10; ++x) {
          const Tensor all = (book.codes() - z[i].select(1, y).select(1, x)).square().sum(1);
          ASSERT_LE(got[i][y][x].item<double>(), all.min().item<double>() + 1e-5) << codes << " codes";
        }
  }
}

TEST(CodebookGradient, PassesStraightThrough) {
  const Book book({.codes = 8}, 4);
  book.codes().copy_(normal({8, 4}, 1)).set_requires_grad(true);
  const Tensor z = normal({2, 4, 3, 3}, 2).set_requires_grad(true), wanted = normal({2, 4, 3, 3}, 3);
  const nn::Codebook::Quantised q = book.codebook.quantise(z);
  EXPECT_LE(largest(q.z - book.codebook.vectors(q.codes)), 1e-6);
  (q.z * wanted).sum().backward();
  EXPECT_TRUE(at::equal(z.grad(), wanted));
  EXPECT_FALSE(book.codes().grad().defined()) << "the decoder's gradient does not reach the codes";
}

TEST(CodebookGradient, OfTheLossesIsTheClosedForm) {
  for (const Learning learning : {Learning::gradient, Learning::ema}) {
    const Book book({.codes = 8, .commitment = 0.3, .learning = learning}, 4);
    const bool learns = learning == Learning::gradient;
    book.codes().copy_(normal({8, 4}, 1)).set_requires_grad(learns);
    const Tensor z = normal({2, 4, 3, 3}, 2).set_requires_grad(true);
    const nn::Codebook::Quantised q = book.codebook.quantise(z);
    const Tensor gap = z.detach() - book.codebook.vectors(q.codes).detach();
    EXPECT_NEAR(q.loss.item<double>(), (learns ? 1.3 : 0.3) * gap.square().mean().item<double>(), 1e-6);
    q.loss.backward();
    EXPECT_LE(largest(z.grad() - gap * (2 * 0.3 / double(z.numel()))), 1e-6);
    if (!learns) continue;
    Tensor codes = book.codes().detach().clone().zero_();
    codes.index_add_(0, q.codes.flatten(), gap.permute({0, 2, 3, 1}).reshape({-1, 4}) * (-2 / double(z.numel())));
    EXPECT_LE(largest(book.codes().grad() - codes), 1e-6);
  }
}

/// Points around the corners of a square, [1, 2, 1, N].
Tensor clusters(const Tensor& centres, uint64_t seed) {
  at::Generator random = generator(seed);
  const Tensor which = at::randint(0, centres.size(0), {64}, random, at::TensorOptions().dtype(at::kLong));
  return (centres.index_select(0, which) + normal({64, 2}, seed + 1000) * 0.05).t().reshape({1, 2, 1, 64});
}

TEST(CodebookAverages, BecomeTheMeansOfTheirClusters) {
  const Tensor centres = at::tensor({1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0, -1.0}, at::kFloat).view({4, 2});
  const Book book({.codes = 4, .learning = Learning::ema, .decay = 0.95}, 2);
  book.codes().copy_(centres * 0.4 + 0.1);
  weight(book.build.weights(), "embedding.embed_avg").copy_(book.codes());
  for (uint64_t step = 0; step < 200; ++step) book.train(clusters(centres, step), step);
  EXPECT_LE(largest(book.codes() - centres), 0.01);
}

TEST(CodebookAverages, PassesBetweenTwoUpdatesCountTogether) {
  const Book whole({.codes = 4, .learning = Learning::ema, .restart_after = 0}, 2),
      parts({.codes = 4, .learning = Learning::ema, .restart_after = 0}, 2);
  const Tensor z = normal({4, 2, 5, 5}, 1);
  whole.train(z, 0);
  parts.codebook.quantise(z.narrow(0, 0, 1));
  parts.train(z.narrow(0, 1, 3), 0);
  EXPECT_LE(largest(whole.codes() - parts.codes()), 1e-6);
}

TEST(CodebookAverages, OnlyTrainingIsRemembered) {
  const Book book({.codes = 4, .learning = Learning::ema, .restart_after = 1}, 2);
  const Tensor before = book.codes().clone();
  {
    const at::NoGradGuard no_grad;
    book.train(normal({1, 2, 4, 4}, 1), 0);
  }
  EXPECT_TRUE(at::equal(book.codes(), before));
  book.train(normal({1, 2, 4, 4}, 1), 0);
  EXPECT_FALSE(at::equal(book.codes(), before));
}

TEST(CodebookAverages, AStepThatIsNotFiniteIsForgotten) {
  const Book book({.codes = 4, .learning = Learning::ema, .restart_after = 1}, 2),
      other({.codes = 4, .learning = Learning::ema, .restart_after = 1}, 2);
  book.codebook.quantise(normal({1, 2, 4, 4}, 1) / 0);
  book.train(normal({1, 2, 4, 4}, 2), 0);
  other.train(normal({1, 2, 4, 4}, 2), 0);
  EXPECT_TRUE(at::equal(book.codes(), other.codes()));
}

TEST(DeadCodes, StartAnewAsVectorsOfTheEncoder) {
  for (const Learning learning : {Learning::gradient, Learning::ema}) {
    const auto run = [&](uint64_t seed, int64_t updates) {
      const Book book({.codes = 8, .learning = learning, .restart_after = 3}, 2);
      for (int64_t i = 0; i < updates; ++i) book.train(normal({1, 2, 4, 4}, uint64_t(i)) * 0.01 + 5, seed);
      return book.codes().clone();
    };
    const auto near = [](const Tensor& codes) { return ((codes - 5).abs().amax(1) < 0.1).sum().item<int64_t>(); };
    EXPECT_LE(near(run(1, 2)), 1) << "none is dead yet";
    const Tensor codes = run(1, 3), vectors = (normal({1, 2, 4, 4}, 2) * 0.01 + 5).view({2, 16}).t();
    EXPECT_GE(near(codes), 7);
    int64_t copies = 0;
    for (int64_t i = 0; i < 8; ++i) copies += (vectors == codes[i]).all(1).any().item<bool>();
    EXPECT_EQ(copies, 7) << "all but the one that was used";
    EXPECT_TRUE(at::equal(codes, run(1, 3)));
    EXPECT_FALSE(at::equal(codes, run(2, 3))) << "which vectors is drawn";
  }
}

TEST(DeadCodes, WaitWhereThereAreMoreThanVectors) {
  const Book book({.codes = 8, .restart_after = 1}, 2);
  const Tensor z = normal({1, 2, 1, 3}, 1) + 5;
  book.train(z, 0);
  EXPECT_EQ(((book.codes() - 5).abs().amax(1) < 4).sum().item<int64_t>(), 3);
}

}  // namespace
}  // namespace brume::test
