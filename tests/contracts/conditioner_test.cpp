// Every conditioner: one row an annotation, a null condition where it says so, dropout only where it is asked for.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <cmath>

#include "core/conditioner.h"
#include "support/registry.h"

namespace brume::test {
namespace {

class ConditionerContract : public testing::TestWithParam<Specimen> {
 protected:
  std::shared_ptr<const Conditioner> conditioner_ = make<Conditioner>(GetParam().yaml);
  std::shared_ptr<const ConditionEncoder> encoder_ = conditioner_->encoder({});
  std::vector<Annotation> annotations(int64_t count) const {
    std::vector<Annotation> all;
    for (int64_t i = 0; i < count; ++i)
      all.push_back({.label = conditioner_->classes() ? i % conditioner_->classes() : -1, .caption = "a red circle"});
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
    return encoder_->encode(annotations(500), &random).classes;
  };
  if (!draw(1).defined()) return;
  EXPECT_TRUE(at::equal(draw(1), draw(1)));
  EXPECT_EQ(at::equal(draw(1), draw(2)), !conditioner_->has_null());
}

INSTANTIATE_TEST_SUITE_P(Registry, ConditionerContract,
                         testing::ValuesIn(specimens("conditioner", {"{type: class_label, classes: 3, dropout: 0}",
                                                                     "{type: class_label, classes: 1, dropout: 0.5}"})),
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
