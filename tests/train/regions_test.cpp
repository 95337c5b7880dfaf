// Regions of prompts side by side: D = D_null + sum_i w_i m_i (D_i - D_null), with estimates that are known.
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "brume/diffusion/prompt_plan.h"
#include "brume/image/image.h"
#include "brume/model.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

/// Estimates the number of letters of its caption everywhere.
class Letters final : public Denoiser {
 public:
  Estimate denoise(const Tensor& x, double, const Condition& c) const override {
    Estimate d;
    d.x0 = at::ones_like(x) * c.context.view({-1, 1, 1, 1});
    return d;
  }
};

Condition encoded(const std::vector<Annotation>& all, int64_t share) {
  std::vector<float> words, negatives;
  for (const Annotation& a : all)
    words.push_back(float(a.caption.size()) + 100 * float(share)), negatives.push_back(float(a.negative.size()) + 1000 * float(share));
  Condition c, null;
  c.context = at::tensor(words).view({-1, 1, 1});
  null.context = at::tensor(negatives).view({-1, 1, 1});
  c.null = std::make_shared<Condition>(null);
  return c;
}

Tensor estimate(const std::string& prompt, const Tensor& regions) {
  const std::vector<Annotation> images{{.caption = prompt, .negative = "no"}};
  const PromptPlan plan({.images = images, .steps = 2, .regions = regions}, encoded);
  return plan.denoise(Letters(), at::zeros({1, 3, 4, 4}), 1, plan.first(), 0).x0;
}

/// [1, 1, 8, 8], 1 in these columns.
Tensor columns(int64_t from, int64_t to) {
  Tensor mask = at::zeros({1, 1, 8, 8});
  mask.narrow(3, from, to - from).fill_(1);
  return mask;
}

TEST(Regions, EachPlaceHasTheEstimateOfItsPrompt) {
  const Tensor x0 = estimate("aaa AND bbbbb", at::cat({columns(0, 4), columns(4, 8)}));
  EXPECT_TRUE(at::equal(x0.narrow(3, 0, 2), at::full({1, 3, 4, 2}, 3.0))) << x0;
  EXPECT_TRUE(at::equal(x0.narrow(3, 2, 2), at::full({1, 3, 4, 2}, 5.0))) << x0;
}

TEST(Regions, PlacesLeftOutAreUnconditional) {
  const Tensor x0 = estimate("aaa AND bbbbb", at::cat({columns(0, 2), columns(6, 8)}));
  EXPECT_TRUE(at::equal(x0.narrow(3, 1, 2), at::full({1, 3, 4, 2}, 2.0))) << "the negative prompt has two letters";
  EXPECT_TRUE(at::equal(x0.narrow(3, 0, 1), at::full({1, 3, 4, 1}, 3.0)));
  EXPECT_TRUE(at::equal(estimate("aaa", columns(0, 0)), at::full({1, 3, 4, 4}, 2.0)));
}

TEST(Regions, EverywhereIsAnd) {
  const Tensor ones = at::ones({2, 1, 8, 8});
  EXPECT_TRUE(at::equal(estimate("aaa :0.5 AND bbbbb :1.5", ones), estimate("aaa :0.5 AND bbbbb :1.5", {})));
  EXPECT_TRUE(at::equal(estimate("aaa AND bbbbb", ones), at::full({1, 3, 4, 4}, 2.0 + 1 + 3)));
}

TEST(Regions, ABorderWithinAPlaceIsShared) {
  const Tensor x0 = estimate("aaa AND bbbbb", at::cat({columns(0, 3), columns(3, 8)}));
  EXPECT_TRUE(at::equal(x0.narrow(3, 1, 1), at::full({1, 3, 4, 1}, 4.0))) << x0;
}

class RegionsRun : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF("pipe/tiny_sd/unet/config.json");
    model_ = std::make_unique<Model>(Model::open(ref_path("pipe/tiny_sd").string(), {.precision = "fp32"}));
    Image left(32, 32, 1), right(32, 32, 1);
    for (int64_t y = 0; y < 32; ++y)
      for (int64_t x = 0; x < 32; ++x) (x < 16 ? left : right).row(y)[x] = 255;
    write_png(folder_.file("left.png"), left), write_png(folder_.file("right.png"), right);
  }
  Tensor sample(const std::string& prompt, const std::vector<std::string>& regions = {}, int64_t batch = 16) const {
    ImageRequest r{.prompts = {prompt}, .count = 2, .seed = 3, .steps = 2, .cfg = 4, .prompt_changes = true, .regions = regions};
    r.batch = batch;
    return model_->sample(r);
  }
  Tensor configured(const std::string& prompt, const std::string& prompts) const {
    return model_->sample({.prompts = {prompt}, .count = 2, .seed = 3, .steps = 4, .cfg = 4, .settings = {"sample.prompts=" + prompts}});
  }
  std::string said(const std::string& prompt, const std::vector<std::string>& regions) const {
    return without(error_of([&] { sample(prompt, regions); }), folder_);
  }
  TempFolder folder_;
  std::unique_ptr<Model> model_;
};

TEST_F(RegionsRun, OnePromptInBothHalvesIsThatPrompt) {
  const std::vector<std::string> halves{folder_.file("left.png"), folder_.file("right.png")};
  EXPECT_TRUE(at::allclose(sample("a lake AND a lake", halves), sample("a lake"), 0, 1e-4));
  const Tensor both = sample("a lake AND a red house", halves);
  EXPECT_FALSE(at::allclose(both, sample("a lake AND a red house"), 0, 1e-3));
  EXPECT_TRUE(at::equal(sample("a lake AND a red house", halves, 1), both)) << "an image depends on itself alone";
}

TEST_F(RegionsRun, AConfigurationHasThem) {
  const std::string left = folder_.file("left.png"), right = folder_.file("right.png");
  ImageRequest r{.prompts = {"a lake AND a red house"}, .count = 2, .seed = 3, .steps = 4, .cfg = 4, .regions = {left, right}};
  EXPECT_TRUE(at::equal(configured(r.prompts[0], "{changes: true, regions: ['" + left + "', '" + right + "']}"), model_->sample(r)));
  EXPECT_EQ(
      without(error_of([&] { configured("a AND b", "{regions: [all, all]}"); }), folder_),
      "settings sample.prompts={regions: [all, all]}: sample.prompts: regions: are those of prompts joined by AND, which changes: true "
      "reads");
}

TEST(PromptPlan, EachShareOfTheStepsHasItsEncoding) {
  const std::vector<Annotation> images{{.caption = "[aaa|b]", .negative = "no"}, {.caption = "abc", .negative = ""}};
  const PromptPlan words({.images = images, .steps = 5, .changes = false, .encodings = 2}, encoded);
  const PromptPlan turns({.images = images, .steps = 5, .with_empty = true, .encodings = 2}, encoded);
  for (int64_t step = 0; step < 5; ++step) {
    const float share = step < 3 ? 0 : 100, negative = step < 3 ? 0 : 1000;
    const auto first = [&](const PromptPlan& plan, const Condition& c) {
      const Tensor x0 = plan.denoise(Letters(), at::zeros({2, 1, 1, 1}), 1, c, step).x0;
      return std::pair(x0[0].item<float>(), x0[1].item<float>());
    };
    EXPECT_EQ(first(words, words.first()), std::pair(7 + share, 3 + share)) << step;
    EXPECT_EQ(first(turns, turns.first()), std::pair((step < 2 || step == 3 ? 3 : 1) + share, 3 + share)) << step;
    EXPECT_EQ(first(words, *words.first().null), std::pair(2 + negative, negative)) << step;
    EXPECT_EQ(first(turns, *turns.first().null->null), std::pair(negative, negative)) << step;
  }
}

TEST_F(RegionsRun, LayersOfTheTextEncoderByStep) {
  const Tensor none = configured("a (lake)", "{}"), one = configured("a (lake)", "{clip_skip: 1}");
  EXPECT_FALSE(at::allclose(none, one, 0, 1e-3));
  EXPECT_TRUE(at::equal(configured("a (lake)", "{clip_skips: [1, 1]}"), one));
  const Tensor both = configured("a (lake)", "{clip_skips: [0, 1]}");
  EXPECT_FALSE(at::allclose(both, none, 0, 1e-4));
  EXPECT_FALSE(at::allclose(both, one, 0, 1e-4));
  EXPECT_TRUE(at::equal(model_->sample({.prompts = {"a (lake)"}, .count = 2, .seed = 3, .steps = 4, .cfg = 4, .clip_skip = {0, 1}}), both));
  EXPECT_EQ(error_of([&] { configured("a", "{clip_skip: 1, clip_skips: [1, 2]}"); }),
            "settings sample.prompts={clip_skip: 1, clip_skips: [1, 2]}: sample.prompts: clip_skips: is instead of clip_skip");
}

TEST_F(RegionsRun, Mistakes) {
  const std::vector<std::string> halves{folder_.file("left.png"), folder_.file("right.png")};
  EXPECT_EQ(said("a lake", halves), "sample.prompts.regions: 2 for 1 part joined by AND in \"a lake\"; one for each, 'all' for everywhere");
  EXPECT_EQ(said("a AND b", {"all", "none.png"}),
            "sample.prompts.regions: there is no file 'none.png'; a region is the file of a mask, or 'all'");
  EXPECT_EQ(said("a AND b", {folder_.file("left.png"), folder_.file("rigt.png")}),
            "sample.prompts.regions: there is no file 'rigt.png'; did you mean 'right.png'?");
}

}  // namespace
}  // namespace brume::test
