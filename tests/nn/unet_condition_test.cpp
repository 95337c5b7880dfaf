// What the unet does with tokens and with images concatenated with its input, and what it says if they are missing.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include "brume/core/network.h"
#include "support/registry.h"

namespace brume::test {
namespace {

const std::string base = "type: unet, channels: 16, groups: 8, multipliers: [1, 2], blocks: 1, heads: 2";
const std::string attentive = "{" + base + ", attention_resolutions: [8], transformer: {}}";

Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return at::randn(shape, random, at::TensorOptions().dtype(at::kFloat));
}

/// With random weights everywhere: what starts as zero would hide mistakes.
std::shared_ptr<Network> awake(const std::string& yaml, const Network::Context& context) {
  const auto network = make<Network>(yaml, context);
  const at::NoGradGuard no_grad;
  uint64_t seed = 100;
  for (Weight& w : network->weights()) w.tensor.add_(normal(w.tensor.sizes(), ++seed) * 0.05);
  return network;
}

Tensor run(const Network& network, const Condition& condition, at::IntArrayRef shape = {2, 4, 16, 16}) {
  const at::NoGradGuard no_grad;
  return network.forward(normal(shape, 1), at::full({shape[0]}, 3.0f), condition, nullptr);
}

Condition tokens(int64_t length) {
  Condition c;
  c.context = normal({2, length, 12}, 7);
  return c;
}

const Network::Context with_tokens{.input = {4, 16, 16}, .out_channels = 4, .context_width = 12};

TEST(UnetCondition, EmbedsClassesAndAVectorTogether) {
  const auto network = awake("{" + base + "}", {.input = {4, 16, 16}, .out_channels = 4, .classes = 3, .vector_width = 5});
  Condition c;
  c.classes = at::full({2}, 1, at::kLong), c.vector = normal({2, 5}, 9);
  const Tensor before = run(*network, c);
  for (const bool of_class : {true, false}) {
    Condition changed = c;
    changed.classes = c.classes.clone(), changed.vector = c.vector.clone();
    if (of_class)
      changed.classes[0].fill_(2);
    else
      changed.vector[0][3].add_(1);
    const Tensor after = run(*network, changed);
    EXPECT_FALSE(after[0].equal(before[0])) << (of_class ? "class" : "vector");
    EXPECT_TRUE(after[1].equal(before[1])) << (of_class ? "class" : "vector");
  }
}

TEST(UnetCondition, AttendsToEveryTokenThatIsNotPadding) {
  const auto network = awake(attentive, with_tokens);
  Condition c = tokens(6);
  const Tensor before = run(*network, c);
  c.context_mask = at::ones({2, 6});
  EXPECT_TRUE(before.equal(run(*network, c)));
  for (int64_t i = 0; i < 6; ++i) {
    Condition changed = c;
    changed.context = c.context.clone();
    changed.context[0][i].add_(1);
    const Tensor after = run(*network, changed);
    EXPECT_FALSE(after[0].equal(before[0])) << "token " << i;
    EXPECT_TRUE(after[1].equal(before[1])) << "token " << i << " is another image's";
  }
  Condition longer = c;
  longer.context = at::cat({c.context, at::full({2, 3, 12}, 9.0f)}, 1);
  longer.context_mask = at::cat({c.context_mask, at::zeros({2, 3})}, 1);
  EXPECT_TRUE(before.equal(run(*network, longer)));
}

TEST(UnetCondition, WorksAtOtherSizesThanItWasMadeFor) {
  const auto network = awake(attentive, with_tokens);
  EXPECT_EQ(network->multiple(), 1);
  for (const auto& [height, width] : {std::pair(22, 34), {15, 34}, {16, 9}, {3, 1}})
    EXPECT_EQ(run(*network, tokens(6), {2, 4, height, width}).sizes(), at::IntArrayRef({2, 4, height, width}));
  for (const char* resampling : {"pool", "residual"})
    EXPECT_EQ(awake("{" + base + ", resampling: " + resampling + "}", {.input = {4, 16, 16}, .out_channels = 4})->multiple(), 2);
}

TEST(UnetCondition, AttendsToItselfWhereThereAreNoTokens) {
  const auto network = awake(attentive, {.input = {4, 16, 16}, .out_channels = 4});
  EXPECT_EQ(run(*network, {}).sizes(), at::IntArrayRef({2, 4, 16, 16}));
}

TEST(UnetCondition, ConcatenatesAnImageWithItsInput) {
  const auto network = awake("{" + base + "}", {.input = {4, 16, 16}, .out_channels = 4, .image_channels = 5});
  Condition c;
  c.image = normal({2, 5, 16, 16}, 8);
  const Tensor before = run(*network, c);
  c.image = c.image.clone();
  c.image[1].add_(0.5);
  EXPECT_TRUE(run(*network, c)[0].equal(before[0]));
  EXPECT_FALSE(run(*network, c)[1].equal(before[1]));
}

template <class F>
std::string mistake(const F& run) {
  try {
    run();
  } catch (const std::logic_error& e) {
    return e.what();
  }
  return "no error";
}

TEST(UnetCondition, SaysWhatItWasNotGiven) {
  EXPECT_EQ(mistake([] { run(*awake(attentive, with_tokens), {}); }), "a U-Net that attends to tokens was given none");
  EXPECT_EQ(mistake([] {
              run(*awake("{" + base + "}", {.input = {4, 16, 16}, .out_channels = 4, .image_channels = 5}), {});
            }),
            "a U-Net that takes 5 channels of an image with its input received none");
}

std::string refusal(const std::string& yaml) {
  return error_of([&] { create_deferred<Network>(builtins(), parse_yaml(yaml, "test.yaml")).check(with_tokens); });
}

TEST(UnetCondition, TokensNeedSpatialTransformers) {
  EXPECT_NE(refusal("{" + base + "}")
                .find("transformer: the conditioner gives tokens of width 12, and only spatial transformers attend to "
                      "tokens; add `transformer: {depth: [1]}`"),
            std::string::npos)
      << refusal("{" + base + "}");
  const std::string blind = "{" + base + ", middle_attention: false, transformer: {}}";
  EXPECT_NE(refusal(blind).find("attention_resolutions: the conditioner gives tokens, and there is no attention that could see them"),
            std::string::npos)
      << refusal(blind);
  const std::string uneven = "{" + base + ", transformer: {depth: [1, 2, 3]}}";
  EXPECT_NE(refusal(uneven).find("depth needs one number, or one per level"), std::string::npos) << refusal(uneven);
}

}  // namespace
}  // namespace brume::test
