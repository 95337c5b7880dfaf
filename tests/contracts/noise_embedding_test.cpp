// Every noise embedding: [B] to [B, width], each row of its own level, the same each time.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>

#include <cmath>

#include "brume/core/noise_embedding.h"
#include "support/registry.h"

namespace brume::test {
namespace {

class NoiseEmbeddingContract : public testing::TestWithParam<Specimen> {
 protected:
  std::shared_ptr<const NoiseEmbedding> embedding_ = make<NoiseEmbedding>(GetParam().yaml);
  Tensor frequencies(uint64_t seed, int64_t width = 32) const {
    at::Generator random = at::detail::createCPUGenerator(seed);
    return embedding_->frequencies(width, random);
  }
  /// What a network receives at the noise levels of the linear schedule.
  static Tensor told(NoiseQuantity quantity) {
    const auto schedule = make<NoiseSchedule>("linear");
    std::vector<float> values;
    for (const double t : {0, 3, 30, 300, 600, 999}) values.push_back(float(noise_quantity(quantity, schedule->sigma(t), *schedule)));
    return at::tensor(values);
  }
};

TEST_P(NoiseEmbeddingContract, Shapes) {
  for (const int64_t width : {2, 32, 128}) {
    const Tensor f = frequencies(1, width);
    EXPECT_EQ(f.sizes(), at::IntArrayRef({width / 2}));
    EXPECT_EQ(f.scalar_type(), at::kFloat);
    const Tensor features = embedding_->features(told(embedding_->quantity()), f);
    EXPECT_EQ(features.sizes(), at::IntArrayRef({6, width}));
    EXPECT_EQ(features.scalar_type(), at::kFloat);
    EXPECT_TRUE(at::isfinite(features).all().item<bool>());
    EXPECT_LE(features.abs().max().item<float>(), 1.0f + 1e-6f);
  }
}

TEST_P(NoiseEmbeddingContract, FrequenciesAreOfTheGeneratorAlone) {
  EXPECT_TRUE(at::equal(frequencies(1), frequencies(1)));
  EXPECT_EQ(at::equal(frequencies(1), frequencies(2)), !embedding_->random());
}

TEST_P(NoiseEmbeddingContract, EachRowIsOfItsOwnLevel) {
  const Tensor c = told(embedding_->quantity()), f = frequencies(1), all = embedding_->features(c, f);
  EXPECT_TRUE(at::equal(all, embedding_->features(c, f)));
  for (int64_t i = 0; i < c.size(0); ++i) EXPECT_TRUE(at::equal(embedding_->features(c.narrow(0, i, 1), f), all.narrow(0, i, 1))) << i;
}

TEST_P(NoiseEmbeddingContract, NoBitDependsOnTheBatch) {
  // Vectorised loops treat their last few values apart: a width that is no multiple of a vector, and many levels, show it.
  const auto schedule = make<NoiseSchedule>("linear");
  std::vector<float> levels;
  for (int t = 0; t < 1000; t += 7) levels.push_back(float(noise_quantity(embedding_->quantity(), schedule->sigma(t), *schedule)));
  const Tensor c = at::tensor(levels);
  for (const int64_t width : {6, 24, 32}) {
    const Tensor f = frequencies(1, width), all = embedding_->features(c, f);
    for (int64_t i = 0; i + 2 <= c.size(0); ++i) {
      ASSERT_TRUE(at::equal(embedding_->features(c.narrow(0, i, 1), f), all.narrow(0, i, 1))) << "width " << width << ", level " << i;
      ASSERT_TRUE(at::equal(embedding_->features(c.narrow(0, i, 2), f), all.narrow(0, i, 2))) << "width " << width << ", level " << i;
    }
  }
}

TEST_P(NoiseEmbeddingContract, LevelsAreToldApart) {
  const Tensor all = embedding_->features(told(embedding_->quantity()), frequencies(1));
  for (int64_t i = 1; i < all.size(0); ++i) EXPECT_GT((all[i] - all[i - 1]).abs().max().item<float>(), 1e-4f) << i;
}

INSTANTIATE_TEST_SUITE_P(Registry, NoiseEmbeddingContract,
                         testing::ValuesIn(specimens("noise_embedding", {"{type: sinusoidal, input: variance, scale: 1000}",
                                                                         "{type: sinusoidal, input: log_snr, sin_first: true}",
                                                                         "{type: fourier, input: variance, scale: 4}"})),
                         readable);

TEST(NoiseQuantities, Values) {
  const auto schedule = make<NoiseSchedule>("linear");
  EXPECT_NEAR(noise_quantity(NoiseQuantity::timestep, schedule->sigma(123), *schedule), 123, 1e-9);
  EXPECT_NEAR(noise_quantity(NoiseQuantity::variance, 2, *schedule), 0.8, 1e-15);
  EXPECT_NEAR(noise_quantity(NoiseQuantity::log_snr, 2, *schedule), -2 * std::log(2), 1e-15);
  EXPECT_NEAR(noise_quantity(NoiseQuantity::quarter_log, 2, *schedule), std::log(2) / 4, 1e-15);
  EXPECT_NEAR(noise_quantity(NoiseQuantity::variance, 1e6, *schedule), 1, 1e-11);
}

}  // namespace
}  // namespace brume::test
