// Condition: every part survives slicing, selecting and joining, and guidances see each row as if it were alone.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include "brume/config/plugin_loader.h"
#include "brume/core/conditioner.h"
#include "brume/core/guidance.h"
#include "support/models.h"
#include "support/registry.h"

namespace brume::test {
namespace {

constexpr Tensor Condition::*parts[] = {&Condition::classes, &Condition::context, &Condition::context_mask,
                                        &Condition::image,   &Condition::vector,  &Condition::sizes,
                                        &Condition::labels,  &Condition::known,   &Condition::mask};

Tensor counted(std::vector<int64_t> shape, double offset) {
  int64_t count = 1;
  for (const int64_t n : shape) count *= n;
  return (at::arange(double(count)) + offset).view(shape).to(at::kFloat);
}

/// A condition with every part, all numbers different.
Condition whole(double offset = 0) {
  Condition c;
  c.classes = c.labels = at::arange(4, at::kLong) + int64_t(offset);
  c.context = counted({4, 3, 2}, offset);
  c.context_mask = at::ones({4, 3});
  c.image = counted({4, 2, 2, 2}, offset + 100);
  c.vector = counted({4, 5}, offset + 200);
  c.sizes = counted({4, 6}, offset + 300);
  c.known = counted({4, 1, 2, 2}, offset + 400);
  c.mask = at::ones({4, 1, 2, 2});
  if (offset == 0) c.null = std::make_shared<Condition>(whole(1000));
  return c;
}

void expect_rows(const Condition& got, const Condition& wanted, const std::vector<int64_t>& rows) {
  const Tensor index = at::tensor(rows);
  for (const auto part : parts) EXPECT_TRUE((got.*part).equal((wanted.*part).index_select(0, index)));
}

TEST(Conditions, SlicesAndSelectionsHaveEveryPart) {
  const Condition c = whole();
  expect_rows(c.slice(1, 2), c, {1, 2});
  expect_rows(*c.slice(1, 2).null, *c.null, {1, 2});
  expect_rows(c.select(at::tensor(std::vector<int64_t>{3, 0})), c, {3, 0});
  expect_rows(c.to(at::kCPU), c, {0, 1, 2, 3});
}

TEST(Conditions, SlicesJoinToTheWhole) {
  const Condition c = whole();
  const Condition joined = concat(c.slice(0, 1), c.slice(1, 3));
  expect_rows(joined, c, {0, 1, 2, 3});
  EXPECT_FALSE(joined.null);
  Condition without = c.slice(1, 3);
  without.vector = Tensor();
  EXPECT_THROW(concat(c.slice(0, 1), without), std::logic_error);
}

/// x0 depends on the pooled vector and the sizes of its row.
class PooledDenoiser final : public Denoiser {
 public:
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    if (condition.vector.size(0) != x.size(0) || condition.sizes.size(0) != x.size(0)) throw std::logic_error("rows are missing");
    const Tensor row = (condition.vector.sum(1) / 100).sin() + (condition.sizes.sum(1) / 1000).cos();
    return {x * 0.5 + row.view({-1, 1, 1, 1}) / (1 + sigma), {}, {}};
  }
};

TEST(Conditions, CfgOfPooledVectorsIsTwoCalls) {
  const Condition c = whole();
  const Tensor x = counted({4, 1, 2, 2}, 0.5);
  const auto inner = std::make_shared<PooledDenoiser>();
  const EstimatePair both = denoise_both(*inner, x, 2, c, "cfg");
  const Tensor with = inner->denoise(x, 2, c).x0, without = inner->denoise(x, 2, *c.null).x0;
  EXPECT_TRUE(both.with.x0.equal(with));
  EXPECT_TRUE(both.without.x0.equal(without));
  EXPECT_FALSE(with.equal(without));
  const GuidedModel model{make<NoiseSchedule>("cosine"), no_models(), make<Parameterization>("v"), {0, true}};
  const Tensor guided = make<Guidance>("{type: cfg, scale: 3}")->wrap(inner, model)->denoise(x, 2, c).x0;
  EXPECT_TRUE(guided.equal(without + (with - without) * 3));
}

/// Gives one pooled vector and six sizes per image, made from its class, with zeros as the null condition.
class Pooled final : public Conditioner {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit Pooled(const Options&) {}
  ConditionerTraits traits() const override { return {.vector_width = 5, .size_ids = 6, .has_null = true}; }
  std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin&) const override { return std::make_shared<Encoder>(); }

 private:
  class Encoder final : public ConditionEncoder {
   public:
    Condition encode(const ConditionRequest& request) const override {
      const int64_t count = int64_t(request.annotations.size());
      Condition c, null;
      c.vector = counted({count, 5}, 1), c.sizes = counted({count, 6}, 1);
      null.vector = at::zeros_like(c.vector), null.sizes = at::zeros_like(c.sizes);
      c.null = std::make_shared<Condition>(null);
      return c;
    }
  };
};

TEST(Conditions, AComposedConditionHasThePooledVector) {
  Registry registry;
  register_builtins(registry);
  registry.add<Conditioner, Pooled>("pooled", "a pooled vector and sizes");
  const auto composed = [&](const std::string& of) {
    return create<Conditioner>(registry, parse_yaml("{type: composite, of: [" + of + "]}", "test.yaml"));
  };
  const auto both = composed("{type: class_label, classes: 3}, pooled");
  EXPECT_EQ(both->traits().vector_width, 5);
  EXPECT_EQ(both->traits().size_ids, 6);
  EXPECT_EQ(both->traits().class_rows, 4);
  const std::vector<Annotation> annotations{{.label = 0}, {.label = 2}};
  const Condition c = both->encoder({})->encode(annotations);
  EXPECT_TRUE(c.vector.equal(counted({2, 5}, 1)));
  EXPECT_TRUE(c.sizes.equal(counted({2, 6}, 1)));
  ASSERT_TRUE(c.classes.defined() && c.null);
  EXPECT_EQ(c.null->vector.abs().sum().item<float>(), 0);
  EXPECT_NE(error_of([&] { composed("pooled, pooled"); }).find("of: two conditions are made of pooled vectors, and the network takes one"),
            std::string::npos);
}

TEST(Conditions, ANetworkMadeWithoutPooledVectorsIgnoresThem) {
  const auto network = make<Network>("{type: song_unet, channels: 16, multipliers: [1, 2], blocks: 1, attention_resolutions: []}",
                                     Network::Context{.input = {1, 8, 8}, .out_channels = 1});
  const at::NoGradGuard no_grad;
  Condition pooled;
  pooled.vector = counted({2, 5}, 1), pooled.sizes = counted({2, 6}, 1);
  const Tensor x = counted({2, 1, 8, 8}, 0) / 64, t = at::ones({2});
  EXPECT_TRUE(network->forward(x, t, pooled, nullptr).equal(network->forward(x, t, {}, nullptr)));
}

}  // namespace
}  // namespace brume::test
