// Every conditioner: one row per annotation, a null condition if it says so, dropout only if it is asked for.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "brume/core/autoencoder.h"
#include "brume/core/conditioner.h"
#include "brume/text/sentencepiece.h"
#include "support/registry.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {

class ConditionerContract : public testing::TestWithParam<Specimen> {
 protected:
  void SetUp() override {
    const bool needs = GetParam().yaml.find("tokenizer.model") != std::string::npos;
    if (needs && !text::sentencepiece_missing().empty()) GTEST_SKIP() << text::sentencepiece_missing();
    encoder_ = conditioner_->encoder({1, &small_tokenizers()});
  }
  std::shared_ptr<const Conditioner> conditioner_ = make<Conditioner>(GetParam().yaml);
  std::shared_ptr<const ConditionEncoder> encoder_;
  std::vector<Annotation> annotations(int64_t count) const {
    std::vector<Annotation> all;
    for (int64_t i = 0; i < count; ++i)
      all.push_back({.label = conditioner_->traits().classes ? i % conditioner_->traits().classes : -1,
                     .caption = i % 3 ? "a red circle left of a white ring" : "a small square"});
    return all;
  }
  /// All of them of one image, half of it open, for those that make images out of others.
  Condition encode(const std::vector<Annotation>& annotations, at::Generator* dropout = nullptr, at::ScalarType dtype = at::kFloat,
                   const ConditionEncoder* encoder = nullptr) const {
    static const std::shared_ptr<const Autoencoder> pixels = make<Autoencoder>("identity", {{3, 16, 16}});
    const int64_t count = int64_t(annotations.size());
    Tensor mask = at::zeros({count, 1, 16, 16});
    mask.narrow(3, 8, 8).fill_(1);
    const Tensor image = (at::arange(3 * 16 * 16) * 0.1).sin().view({1, 3, 16, 16}).expand({count, -1, -1, -1});
    return (encoder ? encoder : encoder_.get())
        ->encode(ConditionRequest{annotations, dropout, dtype, at::kCPU, {3, 16, 16}, image, mask, pixels.get()});
  }
};

TEST_P(ConditionerContract, ImagesBesideTheInput) {
  const auto image_channels = conditioner_->traits().image_channels;
  const int64_t channels = image_channels ? image_channels({3, 16, 16}, {3, 16, 16}) : 0;
  const Condition c = encode(annotations(5));
  ASSERT_EQ(c.image.defined(), channels > 0);
  if (channels == 0) return;
  EXPECT_EQ(c.image.sizes(), at::IntArrayRef({5, channels, 16, 16}));
  EXPECT_TRUE(at::equal(encode(annotations(1)).image[0], c.image[3]));
  EXPECT_EQ(c.null ? c.null->image.abs().max().item<double>() : 0, 0);
}

TEST_P(ConditionerContract, OneRowAnAnnotation) {
  for (const int64_t count : {1, 2, 5, 16}) {
    const Condition c = encode(annotations(count), nullptr);
    EXPECT_EQ(c.classes.defined(), conditioner_->traits().class_rows > 0);
    if (c.classes.defined()) {
      EXPECT_EQ(c.classes.sizes(), at::IntArrayRef({count}));
      EXPECT_EQ(c.classes.scalar_type(), at::kLong);
      EXPECT_GE(c.classes.min().item<int64_t>(), 0);
      EXPECT_LT(c.classes.max().item<int64_t>(), conditioner_->traits().class_rows);
    }
  }
}

TEST_P(ConditionerContract, TheNullConditionIsThereWhereItSaysSo) {
  const Condition c = encode(annotations(4), nullptr);
  ASSERT_EQ(c.null != nullptr, conditioner_->traits().has_null);
  if (!c.null) return;
  EXPECT_EQ(c.null->classes.defined(), c.classes.defined());
  if (!c.classes.defined()) return;
  EXPECT_EQ(c.null->classes.sizes(), c.classes.sizes());
  const Tensor every = encode(annotations(std::max<int64_t>(1, conditioner_->traits().classes)), nullptr).classes;
  EXPECT_FALSE((every == c.null->classes.min()).any().item<bool>()) << "the null class is one of the classes";
  EXPECT_LT(c.null->classes.max().item<int64_t>(), conditioner_->traits().class_rows);
}

TEST_P(ConditionerContract, NothingIsDroppedWithoutAGenerator) {
  const Condition a = encode(annotations(1000), nullptr), b = encode(annotations(1000), nullptr);
  if (!a.classes.defined()) return;
  EXPECT_TRUE(at::equal(a.classes, b.classes));
  EXPECT_LT(a.classes.max().item<int64_t>(), conditioner_->traits().classes);
}

TEST_P(ConditionerContract, ARowDependsOnItsAnnotationOnly) {
  const Condition together = encode(annotations(5), nullptr);
  if (!together.classes.defined()) return;
  for (int64_t i = 0; i < 5; ++i)
    EXPECT_TRUE(at::equal(encode({annotations(5)[size_t(i)]}, nullptr).classes, together.slice(i, 1).classes)) << i;
}

TEST_P(ConditionerContract, DropoutIsOfTheGeneratorAlone) {
  const auto draw = [&](uint64_t seed) {
    at::Generator random = at::detail::createCPUGenerator(seed);
    const Condition c = encode(annotations(500), &random);
    return c.classes.defined() ? c.classes : c.context;
  };
  if (!draw(1).defined()) return;
  EXPECT_TRUE(at::equal(draw(1), draw(1)));
  EXPECT_EQ(at::equal(draw(1), draw(2)), !conditioner_->traits().has_null);
}

TEST_P(ConditionerContract, TokensToAttendTo) {
  const Condition c = encode(annotations(5));
  ASSERT_EQ(c.context.defined(), conditioner_->traits().context_width > 0);
  if (!c.context.defined()) return;
  ASSERT_EQ(c.context.dim(), 3);
  EXPECT_EQ(c.context.size(0), 5);
  EXPECT_EQ(c.context.size(2), conditioner_->traits().context_width);
  EXPECT_TRUE(c.context.isfinite().all().item<bool>());
  if (!c.context_mask.defined()) return;
  EXPECT_EQ(c.context_mask.sizes(), c.context.sizes().slice(0, 2));
  EXPECT_EQ(c.context_mask.scalar_type(), at::kFloat);
  EXPECT_TRUE(((c.context_mask == 0) | (c.context_mask == 1)).all().item<bool>());
  EXPECT_GT(c.context_mask[1].sum().item<double>(), c.context_mask[0].sum().item<double>()) << "the longer caption has more tokens";
  const Condition empty = encode({Annotation{.label = 0}});
  EXPECT_GE(empty.context_mask.sum().item<double>(), 1) << "the empty caption has a token";
}

TEST_P(ConditionerContract, TokensDependOnTheirCaptionOnly) {
  if (conditioner_->traits().context_width == 0) return;
  const at::NoGradGuard no_grad;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Condition together = encode(annotations(16), nullptr, dtype);
    EXPECT_EQ(together.context.scalar_type(), dtype);
    for (const int64_t i : {0, 1, 15}) {
      const std::vector<Annotation> one{annotations(16)[size_t(i)]};
      const Condition alone = encode(one, nullptr, dtype), row = together.slice(i, 1);
      EXPECT_TRUE(at::equal(alone.context, row.context)) << i;
      EXPECT_EQ(alone.null != nullptr, row.null != nullptr);
      if (!alone.null) continue;
      EXPECT_TRUE(at::equal(alone.null->context, row.null->context)) << i;
    }
    EXPECT_FALSE(at::equal(together.context[0], together.context[1]));
  }
}

TEST_P(ConditionerContract, TheNullConditionIsThatOfTheNegativeCaption) {
  if (!conditioner_->traits().captions || !conditioner_->traits().has_null) return;
  const at::NoGradGuard no_grad;
  std::vector<Annotation> all = annotations(2), negatives = annotations(2);
  all[0].negative = negatives[0].caption = "a blue triangle";
  negatives[1].caption = "";
  const Condition c = encode(all), n = encode(negatives);
  EXPECT_TRUE(at::equal(c.null->context, n.context));
  EXPECT_FALSE(at::equal(c.null->context[0], c.null->context[1]));
}

TEST_P(ConditionerContract, AsManyCaptionsAreDroppedAsItSays) {
  if (!conditioner_->traits().captions || !conditioner_->traits().has_null) return;
  const int64_t count = 4000;
  std::vector<Annotation> all(size_t(count), annotations(1).front());
  at::Generator random = at::detail::createCPUGenerator(11);
  const at::NoGradGuard no_grad;
  const Tensor trained = encode(all, &random).context, null = encode(annotations(1)).null->context;
  const double dropped = (trained == null).all(2).all(1).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(dropped, 0.1, 5 * std::sqrt(0.1 * 0.9 / double(count)));  // every specimen's
}

TEST_P(ConditionerContract, WhatIsTrainedIsReached) {
  const std::vector<Weight> weights = encoder_->weights();
  std::set<std::string> names;
  for (const Weight& w : weights) {
    EXPECT_TRUE(names.insert(w.name).second) << w.name;
    if (w.trainable) Tensor(w.tensor).set_requires_grad(true);
  }
  if (std::none_of(weights.begin(), weights.end(), [](const Weight& w) { return w.trainable; })) return;
  at::Generator random = at::detail::createCPUGenerator(1);
  encode(annotations(4), &random).context.square().sum().backward();
  for (const Weight& w : weights) EXPECT_EQ(w.tensor.grad().defined(), w.trainable) << w.name;
}

TEST_P(ConditionerContract, ItsFilesAndWeightsMakeItAnew) {
  const Files files = encoder_->files();
  const auto again = conditioner_->encoder({99, &files});
  const std::vector<Weight> from = encoder_->weights(), to = again->weights();
  ASSERT_EQ(from.size(), to.size());
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < from.size(); ++i) Tensor(to[i].tensor).copy_(from[i].tensor);
  const Condition a = encode(annotations(3)), b = encode(annotations(3), nullptr, at::kFloat, again.get());
  EXPECT_EQ(a.context.defined(), b.context.defined());
  EXPECT_EQ(again->files(), files);
  if (!a.context.defined()) return;
  EXPECT_TRUE(at::equal(a.context, b.context));
}

INSTANTIATE_TEST_SUITE_P(Registry, ConditionerContract,
                         testing::ValuesIn(specimens(
                             "conditioner",
                             {"{type: class_label, classes: 3, dropout: 0}", "{type: class_label, classes: 1, dropout: 0.5}",
                              "{type: class_label, classes: 3, context_width: 16}", "{type: concat_image, image: masked, dropout: 0.5}",
                              "{type: text, tokenizer: tokenizer.model, width: 16, depth: 0, dropout: 0}",
                              "{type: clip_text, tokenizer: clip, width: 16, depth: 2, heads: 2, mlp: 32, trainable: true, "
                              "clip_skip: 1, activation: gelu, pad: 0}",
                              "{type: t5, tokenizer: tokenizer.model, width: 16, depth: 1, heads: 2, head_width: 4, mlp: 16, length: 32, "
                              "mask: true}",
                              "{type: composite, dropout: 0.1, of: [{type: class_label, classes: 3}, {type: text, tokenizer: "
                              "tokenizer.model, width: 16, dropout: 0.4}]}"})),
                         readable);

std::shared_ptr<const Conditioner> labels(double dropout) {
  return make<Conditioner>("{type: class_label, classes: 10, dropout: " + std::to_string(dropout) + "}");
}

/// What concat_image makes of images of 8 by 8 pixels.
Tensor conditioned(const std::string& yaml, const Tensor& images, const Tensor& masks = {}, at::Generator* random = nullptr) {
  const auto pixels = make<Autoencoder>("identity", {{3, 8, 8}});
  const std::vector<Annotation> annotations(size_t(images.size(0)));
  return make<Conditioner>(yaml)
      ->encoder({})
      ->encode(ConditionRequest{annotations, random, at::kFloat, at::kCPU, {3, 8, 8}, images, masks, pixels.get()})
      .image;
}

TEST(ConcatImage, LowResolutionIsTheMeanOfPixels) {
  const Tensor image = (at::arange(2 * 3 * 64) * 0.7).sin().view({2, 3, 8, 8}), small = image.view({2, 3, 4, 2, 4, 2}).mean(5).mean(3);
  const std::string yaml = "{type: concat_image, factor: 2}";
  EXPECT_LT((conditioned(yaml, image) - conditioned(yaml, small)).abs().max().item<double>(), 1e-6)
      << "given large or given small, it is the same";
  EXPECT_LT((conditioned(yaml, image).mean({2, 3}) - image.mean({2, 3})).abs().max().item<double>(), 1e-6);
  EXPECT_EQ(
      error_of([&] { conditioned(yaml, image.narrow(3, 0, 6)); }),
      "an image of 8 by 6 (height by width) is given; this model makes 8 by 8 out of 4 by 4, or out of a large one that it makes small "
      "itself");
}

TEST(ConcatImage, WhatIsMaskedIsNotTold) {
  const Tensor image = at::ones({2, 3, 8, 8});
  Tensor mask = at::zeros({2, 1, 8, 8});
  mask.narrow(2, 0, 4).fill_(1);
  const Tensor told = conditioned("{type: concat_image, image: masked}", image, mask);
  EXPECT_TRUE(at::equal(told.narrow(1, 0, 1), mask)) << "the mask comes first";
  EXPECT_TRUE(at::equal(told.narrow(1, 1, 3), (image * (1 - mask))));
  EXPECT_EQ(error_of([&] { conditioned("{type: concat_image, image: masked}", image); }),
            "this model fills in what a mask leaves open (conditioner: concat_image), and none is given");
  at::Generator random = at::detail::createCPUGenerator(3);
  const Tensor drawn = conditioned("{type: concat_image, image: masked}", at::ones({200, 3, 8, 8}), {}, &random).narrow(1, 0, 1);
  EXPECT_TRUE(((drawn == 0) | (drawn == 1)).all().item<bool>());
  const Tensor share = drawn.flatten(1).mean(1);
  EXPECT_GT(share.min().item<double>(), 0);
  EXPECT_NEAR((share == 1).to(at::kDouble).mean().item<double>(), 0.1, 0.08);
  EXPECT_LT(share.mean().item<double>(), 0.6);
}

// As the networks saw it that were trained so: a pixel is open or known.
TEST(ConcatImage, AMaskIsOneOrZero) {
  const Tensor image = at::ones({1, 3, 8, 8}), soft = (at::arange(64, at::kFloat) / 63).view({1, 1, 8, 8});
  const Tensor told = conditioned("{type: concat_image, image: masked}", image, soft), open = (soft >= 0.5).to(at::kFloat);
  EXPECT_TRUE(at::equal(told.narrow(1, 0, 1), open));
  EXPECT_TRUE(at::equal(told.narrow(1, 1, 3), image * (1 - open)));
}

// Stable Diffusion's inpainting: cfg is of the words, and either estimate sees the image.
TEST(ConcatImage, KeptInTheNullCondition) {
  const std::string kept = "{type: concat_image, factor: 2, keep: true}";
  const auto both = make<Conditioner>("{type: composite, of: [{type: class_label, classes: 10}, " + kept + "]}");
  EXPECT_TRUE(both->traits().has_null);
  const auto pixels = make<Autoencoder>("identity", {{3, 8, 8}});
  const std::vector<Annotation> annotations(2, Annotation{.label = 1});
  const ConditionRequest request{annotations, nullptr, at::kFloat, at::kCPU, {3, 8, 8}, at::ones({1, 3, 8, 8}), {}, pixels.get()};
  const Condition c = both->encoder({})->encode(request);
  EXPECT_EQ(c.image.size(0), 2) << "one image is given for all";
  EXPECT_TRUE(at::equal(c.image, c.null->image));
  EXPECT_FALSE(at::equal(c.classes, c.null->classes));
  EXPECT_NE(error_of([] {
              make<Conditioner>("{type: concat_image, keep: true, dropout: 0.1}");
            }).find("must be 0 if the null condition keeps the image"),
            std::string::npos);
}

// Inpainting with words: while training masks are drawn, whether both are left out together or not.
TEST(ConcatImage, MasksAreDrawnWhateverIsLeftOut) {
  const auto both = make<Conditioner>(
      "{type: composite, dropout: 0.5, of: [{type: class_label, classes: 10}, {type: concat_image, image: masked, keep: true}]}");
  const auto pixels = make<Autoencoder>("identity", {{3, 8, 8}});
  const std::vector<Annotation> annotations(64, Annotation{.label = 1});
  at::Generator random = at::detail::createCPUGenerator(3);
  const ConditionRequest request{annotations, &random, at::kFloat, at::kCPU, {3, 8, 8}, at::ones({64, 3, 8, 8}), {}, pixels.get()};
  const Condition c = both->encoder({})->encode(request);
  EXPECT_GT(c.image.narrow(1, 0, 1).sum().item<double>(), 0);
  const double left_out = (c.classes == 10).to(at::kDouble).mean().item<double>();
  EXPECT_GT(left_out, 0.25);
  EXPECT_LT(left_out, 0.75);
}

// LDM's ClassEmbedder: the class's row is the only token, and the last row is that of the null class.
TEST(ClassLabel, AToken) {
  const auto conditioner = make<Conditioner>("{type: class_label, classes: 3, context_width: 4}");
  EXPECT_EQ(conditioner->traits().class_rows, 0);
  EXPECT_EQ(conditioner->traits().classes, 3);
  const auto encoder = conditioner->encoder({1});
  ASSERT_EQ(encoder->weights().size(), 1u);
  const Weight table = encoder->weights()[0];
  EXPECT_EQ(table.name, "embedding.weight");
  EXPECT_EQ(table.tensor.sizes(), at::IntArrayRef({4, 4}));
  const Condition c = encoder->encode({{.label = 2, .caption = ""}, {.label = 0, .caption = ""}}, nullptr);
  EXPECT_FALSE(c.classes.defined());
  EXPECT_EQ(c.context.sizes(), at::IntArrayRef({2, 1, 4}));
  EXPECT_TRUE(at::equal(c.context[0][0], table.tensor[2]));
  EXPECT_TRUE(at::equal(c.context[1][0], table.tensor[0]));
  EXPECT_TRUE(at::equal(c.null->context[1][0], table.tensor[3]));
}

// Stable Diffusion with a class embedding: cfg is of the words, and either estimate receives the class.
TEST(ClassLabel, KeptInTheNullCondition) {
  const auto kept = make<Conditioner>("{type: class_label, classes: 3, dropout: 0, keep: true}");
  EXPECT_TRUE(kept->traits().has_null);
  EXPECT_EQ(kept->traits().class_rows, 3);
  const Condition c = kept->encoder({})->encode({{.label = 2, .caption = ""}, {.label = 0, .caption = ""}}, nullptr);
  EXPECT_TRUE(at::equal(c.classes, at::tensor({2, 0}, at::kLong)));
  ASSERT_NE(c.null, nullptr);
  EXPECT_TRUE(at::equal(c.classes, c.null->classes));
  EXPECT_NE(error_of([] {
              make<Conditioner>("{type: class_label, keep: true, dropout: 0.1}");
            }).find("must be 0 if the null condition keeps the class"),
            std::string::npos);
}

TEST(ClassLabel, OutOfRange) {
  const auto said = [](int64_t label) {
    return error_of([&] { labels(0.1)->encoder({})->encode({{.label = 3, .caption = ""}, {.label = label, .caption = ""}}, nullptr); });
  };
  EXPECT_EQ(said(10), "class 10 is out of range: this model has 10 classes, 0 to 9");
  EXPECT_EQ(said(-1), "image 1 has no class, and this model needs one (0 to 9)");
  EXPECT_EQ(said(9), "no error");
}

TEST(ClassLabel, TheRateOfDropout) {
  const int64_t count = 100000;
  for (const double rate : {0.1, 0.5}) {
    at::Generator random = at::detail::createCPUGenerator(5);
    const std::vector<Annotation> all(size_t(count), Annotation{.label = 4, .caption = ""});
    const Condition c = labels(rate)->encoder({})->encode(all, &random);
    const double dropped = double((c.classes == 10).sum().item<int64_t>()) / double(count);
    EXPECT_NEAR(dropped, rate, 5 * std::sqrt(rate * (1 - rate) / double(count)));
    EXPECT_EQ((c.classes == 4).sum().item<int64_t>() + (c.classes == 10).sum().item<int64_t>(), count);
  }
}

TEST(ClassLabel, Rows) {
  EXPECT_EQ(labels(0.1)->traits().class_rows, 11);
  EXPECT_EQ(labels(0)->traits().class_rows, 10);
  EXPECT_FALSE(labels(0)->traits().has_null);
}

TEST(Conditions, SliceAndConcatAreInverse) {
  const Condition c =
      labels(0.1)->encoder({})->encode({{.label = 1, .caption = ""}, {.label = 2, .caption = ""}, {.label = 3, .caption = ""}}, nullptr);
  const Condition joined = concat(c.slice(0, 1), c.slice(1, 2));
  EXPECT_TRUE(at::equal(joined.classes, c.classes));
  EXPECT_EQ(c.slice(1, 2).null->classes.size(0), 2);
}

}  // namespace
}  // namespace brume::test
