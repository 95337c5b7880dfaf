// The moving average of the weights, against diffusers' EMAModel.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include "brume/train/ema.h"
#include "support/refs.h"
#include "support/registry.h"

namespace brume::test {
namespace {

Ema ema(EmaOptions options) { return Ema({}, options); }

TEST(EmaDecay, OfTheReference) {
  BRUME_NEED_REF("training_misc.json");
  for (const auto& reference : ref_json("training_misc.json")["ema_decay"]) {
    const auto& kwargs = reference["kwargs"];
    EmaOptions options{.decay = kwargs["decay"], .warmup = EmaOptions::Warmup::ratio};
    if (kwargs.value("use_ema_warmup", false)) {
      options.warmup = EmaOptions::Warmup::power;
      options.inv_gamma = kwargs["inv_gamma"];
      options.power = kwargs["power"];
    }
    const Ema average = ema(options);
    for (const auto& [key, decay] : reference["decay_at"].items()) {
      const int64_t theirs = std::stoll(key);  // diffusers counts updates from 1
      if (theirs >= 1) {
        EXPECT_NEAR(average.decay(theirs - 1), decay.get<double>(), 1e-12) << key;
      }
    }
  }
}

TEST(EmaDecay, WithoutWarmUp) {
  const Ema average = ema({.decay = 0.9, .warmup = EmaOptions::Warmup::none});
  for (const int64_t step : {0, 1, 1000}) EXPECT_EQ(average.decay(step), 0.9);
}

TEST(EmaDecay, RisesToItsLimit) {
  for (const auto warmup : {EmaOptions::Warmup::ratio, EmaOptions::Warmup::power}) {
    const Ema average = ema({.decay = 0.99, .warmup = warmup});
    EXPECT_EQ(average.decay(0), 0);
    for (int64_t step = 1; step < 5000; ++step) ASSERT_GE(average.decay(step), average.decay(step - 1)) << step;
    EXPECT_EQ(average.decay(1000000), 0.99);
  }
}

TEST(EmaTrack, OfTheReference) {
  BRUME_NEED_REF("training_misc.json");
  std::vector<Weight> weights{{"w", at::tensor({1.0f, -2.0f})}};
  Ema average(weights, {.decay = 0.9, .warmup = EmaOptions::Warmup::ratio});
  int64_t step = 0;
  for (const auto& shadow : ref_json("training_misc.json")["ema_track"]["shadow"]) {
    weights[0].tensor.add_(0.5);
    average.update(step++);
    for (int64_t i = 0; i < 2; ++i)
      EXPECT_NEAR(average.shadow()[0].tensor[i].item<double>(), shadow[size_t(i)].get<double>(), 1e-6) << step << ", " << i;
  }
  EXPECT_EQ(step, 6);
}

TEST(EmaTrack, ShadowsAreOfTheirOwn) {
  std::vector<Weight> weights{{"a", at::full({3}, 2.0f)}, {"buffer", at::full({2}, 5.0f), false}};
  Ema average(weights, {.decay = 0.5, .warmup = EmaOptions::Warmup::none});
  weights[0].tensor.fill_(4);
  EXPECT_EQ(average.shadow()[0].tensor[0].item<float>(), 2);
  average.update(0);
  EXPECT_EQ(average.shadow()[0].name, "a");
  EXPECT_TRUE(at::equal(average.shadow()[0].tensor, at::full({3}, 3.0f)));
  EXPECT_TRUE(at::equal(average.shadow()[1].tensor, at::full({2}, 5.0f)));
  EXPECT_FALSE(average.shadow()[1].trainable);
}

TEST(EmaTrack, AnyMemoryLayout) {
  // A weight that is not contiguous (channels-last) is averaged like any other.
  const Tensor values = at::arange(2 * 3 * 4 * 4, at::kFloat).view({2, 3, 4, 4});
  std::vector<Weight> plain{{"w", values.clone()}}, last{{"w", values.contiguous(at::MemoryFormat::ChannelsLast)}};
  Ema a(plain, {.decay = 0.5, .warmup = EmaOptions::Warmup::none}), b(last, {.decay = 0.5, .warmup = EmaOptions::Warmup::none});
  plain[0].tensor.mul_(3), last[0].tensor.mul_(3);
  a.update(0), b.update(0);
  EXPECT_TRUE(at::equal(a.shadow()[0].tensor, values * 2));
  EXPECT_TRUE(at::equal(b.shadow()[0].tensor, values * 2));
}

}  // namespace
}  // namespace brume::test
