// Weights that layers form at each use: the numbers and gradients of weights that are kept, without the memory.
#include "brume/core/formed_weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "brume/nn/blocks/layers.h"
#include "brume/nn/blocks/recompute.h"

namespace brume::test {
namespace {

using WeakTensor = c10::weak_intrusive_ptr<c10::TensorImpl>;

/// A layer of a base and a change of it, and what it formed last.
struct Formed {
  nn::Linear layer{at::zeros({5, 4}), at::randn({5})};
  Tensor base = at::randn({5, 4}), change = at::randn({5, 4}).requires_grad_();
  FormedWeights weights;
  int uses = 0;
  std::optional<WeakTensor> last;

  Formed() {
    weights.add(layer.weight, [this] {
      Tensor w = base.clone();
      w.add_(change);
      ++uses;
      last = WeakTensor(w.getIntrusivePtr());
      return w;
    });
  }
};

TEST(FormedWeights, GiveTheNumbersAndGradientsOfTheSum) {
  Formed f;
  const Tensor x = at::randn({3, 2, 4});
  f.layer(x).square().sum().backward();
  const Tensor own = f.change.detach().clone().requires_grad_();
  const nn::Linear plain{f.base + own, f.layer.bias};
  plain(x).square().sum().backward();
  EXPECT_TRUE(f.layer(x).equal(plain(x)));
  EXPECT_TRUE(f.change.grad().equal(own.grad()));
  EXPECT_EQ(f.uses, 2);
}

TEST(FormedWeights, AreDroppedWithinABlockThatIsComputedAgain) {
  Formed f;
  const Tensor x = at::randn({3, 2, 4}).requires_grad_();
  const auto twice = [&](bool checkpoint) {
    const auto block = [&f, x](at::Generator*) { return f.layer(x).square(); };
    const Tensor loss = nn::recomputed(checkpoint, nullptr, block).sum();
    const bool kept = !f.last->expired();
    loss.backward();
    return kept;
  };
  EXPECT_TRUE(twice(false));
  const Tensor gradient = f.change.grad().clone();
  f.change.mutable_grad().zero_();
  f.uses = 0;
  EXPECT_FALSE(twice(true));
  EXPECT_EQ(f.uses, 2);
  EXPECT_TRUE(f.change.grad().equal(gradient));
}

TEST(FormedWeights, AreNoNumbersForWhoeverReadsTheWeightItself) {
  Tensor weight = at::ones({2, 3});
  {
    FormedWeights weights;
    weights.add(weight, [] { return at::ones({2, 3}); });
    EXPECT_EQ(weight.sizes(), (std::vector<int64_t>{2, 3}));
    EXPECT_TRUE(weight.isnan().all().item<bool>());
    EXPECT_TRUE(FormedWeights::of(weight).equal(at::ones({2, 3})));
  }
  EXPECT_TRUE(FormedWeights::of(weight).is_same(weight)) << "formed no more";
}

}  // namespace
}  // namespace brume::test
