// Every conditioner: one row an annotation, a null condition where it says so, dropout only where it is asked for.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/conditioner.h"
#include "support/registry.h"
#include "support/tokenizers.h"
#include "text/sentencepiece.h"

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
      all.push_back({.label = conditioner_->classes() ? i % conditioner_->classes() : -1,
                     .caption = i % 3 ? "a red circle left of a white ring" : "a small square"});
    return all;
  }
};

TEST_P(ConditionerContract, OneRowAnAnnotation) {
  for (const int64_t count : {1, 2, 5, 16}) {
    const Condition c = encoder_->encode(annotations(count), nullptr);
    EXPECT_EQ(c.classes.defined(), conditioner_->class_rows() > 0);
    if (c.classes.defined()) {
      EXPECT_EQ(c.classes.sizes(), at::IntArrayRef({count}));
      EXPECT_EQ(c.classes.scalar_type(), at::kLong);
      EXPECT_GE(c.classes.min().item<int64_t>(), 0);
      EXPECT_LT(c.classes.max().item<int64_t>(), conditioner_->class_rows());
    }
  }
}

TEST_P(ConditionerContract, TheNullConditionIsThereWhereItSaysSo) {
  const Condition c = encoder_->encode(annotations(4), nullptr);
  ASSERT_EQ(c.null != nullptr, conditioner_->has_null());
  if (!c.null) return;
  EXPECT_EQ(c.null->classes.defined(), c.classes.defined());
  if (!c.classes.defined()) return;
  EXPECT_EQ(c.null->classes.sizes(), c.classes.sizes());
  const Tensor every = encoder_->encode(annotations(std::max<int64_t>(1, conditioner_->classes())), nullptr).classes;
  EXPECT_FALSE((every == c.null->classes.min()).any().item<bool>()) << "the null class is one of the classes";
  EXPECT_LT(c.null->classes.max().item<int64_t>(), conditioner_->class_rows());
}

TEST_P(ConditionerContract, NothingIsDroppedWithoutAGenerator) {
  const Condition a = encoder_->encode(annotations(1000), nullptr), b = encoder_->encode(annotations(1000), nullptr);
  if (!a.classes.defined()) return;
  EXPECT_TRUE(at::equal(a.classes, b.classes));
  EXPECT_LT(a.classes.max().item<int64_t>(), conditioner_->classes());
}

TEST_P(ConditionerContract, ARowDependsOnItsAnnotationOnly) {
  const Condition together = encoder_->encode(annotations(5), nullptr);
  if (!together.classes.defined()) return;
  for (int64_t i = 0; i < 5; ++i)
    EXPECT_TRUE(at::equal(encoder_->encode({annotations(5)[size_t(i)]}, nullptr).classes, together.slice(i, 1).classes)) << i;
}

TEST_P(ConditionerContract, DropoutIsOfTheGeneratorAlone) {
  const auto draw = [&](uint64_t seed) {
    at::Generator random = at::detail::createCPUGenerator(seed);
    const Condition c = encoder_->encode(annotations(500), &random);
    return c.classes.defined() ? c.classes : c.context;
  };
  if (!draw(1).defined()) return;
  EXPECT_TRUE(at::equal(draw(1), draw(1)));
  EXPECT_EQ(at::equal(draw(1), draw(2)), !conditioner_->has_null());
}

TEST_P(ConditionerContract, TokensToAttendTo) {
  const Condition c = encoder_->encode(annotations(5));
  ASSERT_EQ(c.context.defined(), conditioner_->context_width() > 0);
  if (!c.context.defined()) return;
  ASSERT_EQ(c.context.dim(), 3);
  EXPECT_EQ(c.context.size(0), 5);
  EXPECT_EQ(c.context.size(2), conditioner_->context_width());
  EXPECT_TRUE(c.context.isfinite().all().item<bool>());
  if (!c.context_mask.defined()) return;
  EXPECT_EQ(c.context_mask.sizes(), c.context.sizes().slice(0, 2));
  EXPECT_EQ(c.context_mask.scalar_type(), at::kFloat);
  EXPECT_TRUE(((c.context_mask == 0) | (c.context_mask == 1)).all().item<bool>());
  EXPECT_GT(c.context_mask[1].sum().item<double>(), c.context_mask[0].sum().item<double>()) << "the longer caption has more tokens";
  const Condition empty = encoder_->encode({Annotation{.label = 0}});
  EXPECT_GE(empty.context_mask.sum().item<double>(), 1) << "the empty caption has a token";
}

TEST_P(ConditionerContract, TokensDependOnTheirCaptionOnly) {
  if (conditioner_->context_width() == 0) return;
  const at::NoGradGuard no_grad;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Condition together = encoder_->encode({annotations(16), nullptr, dtype});
    EXPECT_EQ(together.context.scalar_type(), dtype);
    for (const int64_t i : {0, 1, 15}) {
      const std::vector<Annotation> one{annotations(16)[size_t(i)]};
      const Condition alone = encoder_->encode({one, nullptr, dtype}), row = together.slice(i, 1);
      EXPECT_TRUE(at::equal(alone.context, row.context)) << i;
      EXPECT_EQ(alone.null != nullptr, row.null != nullptr);
      if (!alone.null) continue;
      EXPECT_TRUE(at::equal(alone.null->context, row.null->context)) << i;
    }
    EXPECT_FALSE(at::equal(together.context[0], together.context[1]));
  }
}

TEST_P(ConditionerContract, TheNullConditionIsThatOfTheNegativeCaption) {
  if (!conditioner_->captions() || !conditioner_->has_null()) return;
  const at::NoGradGuard no_grad;
  std::vector<Annotation> all = annotations(2), negatives = annotations(2);
  all[0].negative = negatives[0].caption = "a blue triangle";
  negatives[1].caption = "";
  const Condition c = encoder_->encode(all), n = encoder_->encode(negatives);
  EXPECT_TRUE(at::equal(c.null->context, n.context));
  EXPECT_FALSE(at::equal(c.null->context[0], c.null->context[1]));
}

TEST_P(ConditionerContract, AsManyCaptionsAreDroppedAsItSays) {
  if (!conditioner_->captions() || !conditioner_->has_null()) return;
  const int64_t count = 4000;
  std::vector<Annotation> all(size_t(count), annotations(1).front());
  at::Generator random = at::detail::createCPUGenerator(11);
  const at::NoGradGuard no_grad;
  const Tensor trained = encoder_->encode(all, &random).context, null = encoder_->encode(annotations(1)).null->context;
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
  encoder_->encode(annotations(4), &random).context.square().sum().backward();
  for (const Weight& w : weights) EXPECT_EQ(w.tensor.grad().defined(), w.trainable) << w.name;
}

TEST_P(ConditionerContract, ItsFilesAndWeightsMakeItAnew) {
  const Files files = encoder_->files();
  const auto again = conditioner_->encoder({99, &files});
  const std::vector<Weight> from = encoder_->weights(), to = again->weights();
  ASSERT_EQ(from.size(), to.size());
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < from.size(); ++i) Tensor(to[i].tensor).copy_(from[i].tensor);
  const Condition a = encoder_->encode(annotations(3)), b = again->encode(annotations(3));
  EXPECT_EQ(a.context.defined(), b.context.defined());
  EXPECT_EQ(again->files(), files);
  if (!a.context.defined()) return;
  EXPECT_TRUE(at::equal(a.context, b.context));
}

INSTANTIATE_TEST_SUITE_P(Registry, ConditionerContract,
                         testing::ValuesIn(specimens(
                             "conditioner", {"{type: class_label, classes: 3, dropout: 0}", "{type: class_label, classes: 1, dropout: 0.5}",
                                             "{type: text, tokenizer: tokenizer.model, width: 16, depth: 0, dropout: 0}",
                                             "{type: clip_text, tokenizer: clip, width: 16, depth: 2, heads: 2, mlp: 32, trainable: true, "
                                             "clip_skip: 1, activation: gelu, pad: 0}",
                                             "{type: several, dropout: 0.1, of: [{type: class_label, classes: 3}, {type: text, tokenizer: "
                                             "tokenizer.model, width: 16, dropout: 0.4}]}"})),
                         readable);

std::shared_ptr<const Conditioner> labels(double dropout) {
  return make<Conditioner>("{type: class_label, classes: 10, dropout: " + std::to_string(dropout) + "}");
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
  EXPECT_EQ(labels(0.1)->class_rows(), 11);
  EXPECT_EQ(labels(0)->class_rows(), 10);
  EXPECT_FALSE(labels(0)->has_null());
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
