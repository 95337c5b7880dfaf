// Prompts with weights: what counts how much, and the mistakes of broken prompts.
#include "brume/text/prompt.h"

#include <gtest/gtest.h>

namespace brume::text {
namespace {

using Parts = std::vector<PromptPart>;

void expect_parts(const std::string& prompt, const Parts& wanted) {
  const Parts got = weighted_parts(prompt);
  ASSERT_EQ(got.size(), wanted.size()) << prompt;
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].text, wanted[i].text) << prompt;
    EXPECT_NEAR(got[i].weight, wanted[i].weight, 1e-12) << prompt;
  }
}

TEST(WeightedPrompt, WithoutBracketsItIsOnePartAsItIs) {
  for (const char* plain : {"", "a cat", "a cat: 3.5, \xc3\xa9 n", "a) b] c:1.2)"}) expect_parts(plain, {{plain, 1}});
}

TEST(WeightedPrompt, Brackets) {
  expect_parts("a (cat) here", {{"a "}, {"cat", 1.1}, {" here"}});
  expect_parts("a [cat]", {{"a "}, {"cat", 1 / 1.1}});
  expect_parts("(a:1.3) b", {{"a", 1.3}, {" b"}});
  expect_parts("(a: .5 )", {{"a", 0.5}});
  expect_parts("(a:+2)(b:-1)(c:0)", {{"a", 2}, {"b", -1}, {"c", 0}});
  expect_parts("((a))", {{"a", 1.1 * 1.1}});
  expect_parts("((a:2) b)", {{"a", 2.2}, {" b", 1.1}});
  expect_parts("(a [b] (c:1.5))", {{"a ", 1.1}, {"b", 1}, {" ", 1.1}, {"c", 1.65}});
  expect_parts("([a])", {{"a", 1}});
}

TEST(WeightedPrompt, EscapedAndUnclosed) {
  expect_parts(R"(a \(cat\) \[b\] \\)", {{R"(a (cat) [b] \)"}});
  expect_parts(R"((a \(b\):1.2))", {{"a (b)", 1.2}});
  expect_parts("(a b", {{"a b", 1.1}});
  expect_parts("a [b (c", {{"a "}, {"b ", 1 / 1.1}, {"c", 1}});
  expect_parts("(a:b)", {{"a:b", 1.1}});
  expect_parts("(a:1.2.3)", {{"a:1.2.3", 1.1}});
  expect_parts("()", {{"", 1}});
  expect_parts("a:1.5) b", {{"a:1.5) b"}});
}

/// parse_prompt_attention of A1111's web UI (Forge Classic 1f95d717) reads these so.
TEST(WeightedPrompt, EdgesAreThoseOfA1111) {
  expect_parts("(a:inf) (b:nan)", {{"a:inf", 1.1}, {" "}, {"b:nan", 1.1}});
  expect_parts("red \\ (x:1.3)\\", {{"red  "}, {"x", 1.3}});
}

TEST(WeightedPrompt, Breaks) {
  EXPECT_EQ(split_at_breaks({{"a cat"}}), (std::vector<Parts>{{{"a cat"}}}));
  EXPECT_EQ(split_at_breaks({{"a BREAK b"}, {"c", 2}}), (std::vector<Parts>{{{"a "}}, {{" b"}, {"c", 2}}}));
  EXPECT_EQ(split_at_breaks({{"BREAKING news, OUTBREAK, break"}}).size(), 1u);
  EXPECT_EQ(split_at_breaks({{"a BREAK"}}).size(), 2u);
  EXPECT_EQ(split_at_breaks({{"", 1}}).size(), 1u);
}

}  // namespace
}  // namespace brume::text
