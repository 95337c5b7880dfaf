// Laws of perp_neg, whose estimates of the three prompts are given.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>

#include "brume/core/guidance.h"
#include "brume/numerics/per_image.h"
#include "support/models.h"
#include "support/registry.h"

namespace brume::test {
namespace {

enum Prompt : int64_t { wanted, negative, nothing };

/// One tensor for each class, image by image.
class ThreePrompts final : public Denoiser {
 public:
  Tensor estimates[3];
  Estimate denoise(const Tensor& x, double, const Condition& condition) const override {
    std::vector<Tensor> rows;
    for (int64_t i = 0; i < x.size(0); ++i)
      rows.push_back(estimates[condition.classes[i].item<int64_t>()].narrow(0, i % estimates[0].size(0), 1));
    return {at::cat(rows), {}, {}};
  }
};

class PerpNeg : public testing::Test {
 protected:
  PerpNeg() {
    at::Generator random = at::detail::createCPUGenerator(5);
    for (Tensor& t : model_->estimates) t = at::randn({3, 2, 4, 4}, random, at::TensorOptions().dtype(at::kDouble));
  }
  static Condition of(Prompt prompt) {
    Condition c;
    c.classes = at::full({3}, int64_t(prompt), at::kLong);
    return c;
  }
  Tensor guided(const std::string& yaml, bool with_empty) const {
    Condition condition = of(wanted), null = of(with_empty ? negative : nothing);
    if (with_empty) null.null = std::make_shared<Condition>(of(nothing));
    condition.null = std::make_shared<Condition>(null);
    const GuidedModel model{make<NoiseSchedule>("cosine"), no_models()};
    return make<Guidance>(yaml)->wrap(model_, model)->denoise(model_->estimates[0], 1, condition).x0;
  }
  std::shared_ptr<ThreePrompts> model_ = std::make_shared<ThreePrompts>();
};

double largest(const Tensor& t) { return t.abs().max().item<double>(); }

TEST_F(PerpNeg, WithoutANegativePromptItIsCfg) {
  EXPECT_TRUE(at::equal(guided("{type: perp_neg, scale: 3}", false), guided("{type: cfg, scale: 3}", false)));
  model_->estimates[negative] = model_->estimates[nothing];
  EXPECT_TRUE(at::equal(guided("{type: perp_neg, scale: 3}", true), guided("{type: cfg, scale: 3}", false)));
}

TEST_F(PerpNeg, TakesNothingFromWhatThePromptAsksFor) {
  const Tensor cfg = guided("{type: cfg, scale: 3}", false), base = model_->estimates[nothing], p = model_->estimates[wanted] - base;
  const Tensor moved = guided("{type: perp_neg, scale: 3, negative_scale: 2}", true) - cfg;
  EXPECT_LT(largest(image_dot(moved, p)), 1e-12) << "at right angles to the prompt";
  EXPECT_LT(largest(moved + (model_->estimates[negative] - base - image_parallel(model_->estimates[negative] - base, p)) * 6), 1e-12);
  model_->estimates[negative] = base + p * 0.7;
  EXPECT_LT(largest(guided("{type: perp_neg, scale: 3}", true) - cfg), 1e-12) << "a negative prompt along the prompt";
}

TEST_F(PerpNeg, DeclaresWhatItNeeds) {
  EXPECT_TRUE(make<Guidance>("perp_neg")->traits().uses_empty);
  EXPECT_FALSE(make<Guidance>("{type: perp_neg, scale: 1, negative_scale: 0}")->traits().uses_empty);
  EXPECT_FALSE(make<Guidance>("{type: cfg, scale: 3}")->traits().uses_empty);
}

}  // namespace
}  // namespace brume::test
