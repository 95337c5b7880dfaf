// The patch discriminator: shapes, what a logit sees, and the flow of gradients.
#include "brume/nn/blocks/patch_discriminator.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "brume/nn/ops/ops.h"
#include "support/registry.h"

namespace brume::test {
namespace {

Tensor drawn(std::vector<int64_t> shape, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return at::randn(shape, random, at::TensorOptions().dtype(at::kFloat));
}

TEST(PatchDiscriminator, GivesAsManyVerdictsAsItSays) {
  for (const int64_t layers : {1, 2, 3})
    for (const ImageShape shape : {ImageShape{3, 32, 48}, {1, 28, 28}}) {
      const nn::PatchDiscriminator d(nn::Builder(1), shape.channels, {8, layers});
      const ImageShape logits = nn::logits_shape(shape, layers);
      EXPECT_EQ(d(drawn({2, shape.channels, shape.height, shape.width}, 2), true).sizes(),
                (std::vector<int64_t>{2, 1, logits.height, logits.width}));
    }
}

TEST(PatchDiscriminator, RefusesImagesThatAreTooSmall) {
  EXPECT_EQ(error_of([] { nn::logits_shape({3, 8, 8}, 3); }), "layers = 3 is too many for images of 3x8x8; 1 at most");
  EXPECT_EQ(error_of([] {
              nn::logits_shape({3, 4, 4}, 1);
            }),
            "images of 3x4x4 are too small for a patch discriminator; the least is 6 pixels per side");
}

TEST(PatchDiscriminator, AnImageDoesNotDependOnItsBatch) {
  const nn::PatchDiscriminator d(nn::Builder(1), 3, {8, 2});
  const Tensor x = drawn({3, 3, 16, 16}, 3);
  EXPECT_TRUE(d(x, true)[1].equal(d(x.narrow(0, 1, 1), true)[0]));
}

TEST(PatchDiscriminator, LearnsOnlyWhereAsked) {
  const nn::Builder build(1);
  const nn::PatchDiscriminator d(build, 3, {8, 2});
  for (const Weight& w : build.weights()) Tensor(w.tensor).set_requires_grad(true);
  Tensor x = drawn({1, 3, 16, 16}, 4).set_requires_grad(true);
  d(x, false).sum().backward();
  EXPECT_GT(x.grad().abs().max().item<double>(), 0);
  for (const Weight& w : build.weights()) EXPECT_FALSE(w.tensor.grad().defined()) << w.name;
  d(x.detach(), true).sum().backward();
  for (const Weight& w : build.weights()) EXPECT_TRUE(w.tensor.grad().defined()) << w.name;
}

TEST(LeakyRelu, KeepsAFifthOfWhatIsNegative) {
  const Tensor x = drawn({64}, 5);
  EXPECT_TRUE(nn::leaky_relu(x, 0.2).allclose(x.clamp_min(0) + 0.2 * x.clamp_max(0)));
}

}  // namespace
}  // namespace brume::test
