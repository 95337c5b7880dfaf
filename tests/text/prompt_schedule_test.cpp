// Prompts that change from step to step, as A1111 reads them, and prompts side by side.
#include "brume/text/prompt_schedule.h"

#include <gtest/gtest.h>

#include "brume/text/prompt.h"

namespace brume::text {
namespace {

std::vector<std::string> steps_of(const std::string& prompt, int64_t steps) {
  std::vector<std::string> all;
  for (int64_t s = 0; s < steps; ++s) all.push_back(prompt_at(prompt, s, steps));
  return all;
}
using Texts = std::vector<std::string>;

TEST(PromptSchedule, ChangesAtAShareOrAStep) {
  EXPECT_EQ(steps_of("a [b:c:0.5]", 4), (Texts{"a b", "a b", "a b", "a c"}));
  EXPECT_EQ(steps_of("[b:c:1]", 3), (Texts{"b", "b", "c"}));
  EXPECT_EQ(steps_of("[c:1]", 3), (Texts{"", "", "c"}));
  EXPECT_EQ(steps_of("[b::1]", 3), (Texts{"b", "b", ""}));
  EXPECT_EQ(steps_of("[b:c:0]", 2), (Texts{"c", "c"}));
  EXPECT_EQ(steps_of("[b:c:-1]", 2), (Texts{"c", "c"}));
  EXPECT_EQ(steps_of("[(b:1.2):c:1.0]", 2), (Texts{"(b:1.2)", "(b:1.2)"}));
}

TEST(PromptSchedule, Alternates) {
  EXPECT_EQ(steps_of("[a|b|c] d", 5), (Texts{"a d", "a d", "b d", "c d", "a d"}));
  EXPECT_EQ(steps_of("[a||b]", 4), (Texts{"a", "a", "", "b"}));
  EXPECT_EQ(steps_of("[[a|b]:c:2]", 4), (Texts{"a", "a", "b", "c"}));
}

TEST(PromptSchedule, OtherBracketsStay) {
  for (const char* same : {"a [b] (c:1.2)", "[b", "b]", R"(\[a|b\])", "[a:b]", "a:b:0.5", ""}) EXPECT_EQ(prompt_at(same, 3, 9), same);
}

TEST(PromptSchedule, PromptsSideBySide) {
  EXPECT_EQ(prompts_between_ands("a cat"), (std::vector<PromptPiece>{{"a cat", 1}}));
  EXPECT_EQ(prompts_between_ands("a cat :1.2 AND a dog:-0.5 AND x"), (std::vector<PromptPiece>{{"a cat", 1.2}, {"a dog", -0.5}, {"x", 1}}));
  EXPECT_EQ(prompts_between_ands("a cat :0.8"), (std::vector<PromptPiece>{{"a cat", 0.8}})) << "A1111 weighs one prompt as well";
  for (const char* one : {"SAND ANDY and b", "a _AND b", "a AND_ b",
                          "caf\xc3\xa9"
                          "AND b"})
    EXPECT_EQ(prompts_between_ands(one), (std::vector<PromptPiece>{{one, 1}}));
}

TEST(WeightedPrompt, AbsoluteWeightsAreComfyUis) {
  const auto parts = absolute_parts(R"p(a ((b:1.3) c) [d] \(e\))p");
  ASSERT_EQ(parts.size(), 4u);
  EXPECT_EQ(parts[1].text, "b");
  EXPECT_EQ(parts[1].weight, 1.3) << "whatever is around it";
  EXPECT_NEAR(parts[2].weight, 1.1, 1e-12);
  EXPECT_EQ(parts[3].text, " [d] (e)");
}

/// token_weights of ComfyUI (commit 87606c5f) reads these so.
TEST(WeightedPrompt, AbsoluteWeightsAtTheEdges) {
  using Parts = std::vector<PromptPart>;
  EXPECT_EQ(absolute_parts("(a:1.3 b"), (Parts{{"(a:1.3 b", 1}}));
  EXPECT_EQ(absolute_parts("x (a: 1.3 )(b:1e1)"), (Parts{{"x ", 1}, {"a", 1.3}, {"b", 10}}));
  EXPECT_EQ(absolute_parts("(:1.3) y"), (Parts{{":1.3", 1.1}, {" y", 1}}));
  EXPECT_EQ(absolute_parts("((a:1.2"), (Parts{{"((a:1.2", 1}}));
  EXPECT_EQ(absolute_parts(R"((a \(b\):0.5))"), (Parts{{"a (b)", 0.5}}));
}

}  // namespace
}  // namespace brume::text
