// Gradients are summed over the processes while the backward pass runs: the last buckets first, and the same sums as after it.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "brume/train/data_parallel.h"
#include "world_support.h"

namespace brume::test {
namespace {

/// Values of a weight that has a bucket of its own.
constexpr int64_t large = (int64_t{25} << 20) / int64_t(sizeof(float));

/// Counts the values of each sum that begins. Its sums are those of two processes that have the same gradients.
class CountingWorld final : public World {
 public:
  CountingWorld() : World({0, 2, 0, 2}) {}
  std::unique_ptr<Pending> begin_all_reduce(const Tensor& tensor, Reduction reduction) override {
    if (reduction == Reduction::sum) Tensor(tensor).mul_(2), begun.push_back(tensor.numel());
    return std::make_unique<Done>();
  }
  Tensor all_gather(const Tensor& tensor) override { return tensor; }
  std::unique_ptr<Pending> begin_broadcast(const Tensor&, int64_t) override { return std::make_unique<Done>(); }
  void barrier() override {}
  void leave(const std::string&) override {}
  std::vector<int64_t> begun;

 private:
  struct Done final : Pending {
    void wait() override {}
  };
};

Weight weight(const std::string& name, int64_t values) {
  Tensor t = at::ones({values}, at::TensorOptions().dtype(at::kFloat));
  t.set_requires_grad(true);
  return {name, t, true};
}

TEST(GradientSum, BeginsWithTheLastBucketsWhileThePassRuns) {
  const at::AutoGradMode with_grad(true);
  const std::vector<Weight> weights{weight("a", large), weight("b", large - 1), weight("c", large - 2), weight("d", 3)};
  CountingWorld world;
  GradientSum sum(weights, world);
  std::vector<int64_t> in_pass;
  sum.during([&] {
    // d's gradient comes first, then c's, then a's; b has none.
    const Tensor x = weights[0].tensor.sum() + 1;
    (x * weights[2].tensor.sum() + weights[3].tensor.sum()).backward();
    in_pass = world.begun;
  });
  EXPECT_EQ(in_pass, (std::vector<int64_t>{3, large - 2}));
  EXPECT_EQ(world.begun, (std::vector<int64_t>{3, large - 2, large - 1, large}));
  sum.finish();
  EXPECT_EQ(weights[0].tensor.grad()[0].item<float>(), 2.F * float(large - 2));
  EXPECT_FALSE(weights[1].tensor.grad().defined());
  EXPECT_EQ(weights[2].tensor.grad()[5].item<float>(), 2.F * float(large + 1));
  EXPECT_EQ(weights[3].tensor.grad()[2].item<float>(), 2.F);
}

TEST(GradientSum, RefusesASecondGradientInOnePass) {
  const at::AutoGradMode with_grad(true);
  const std::vector<Weight> weights{weight("a", 2)};
  CountingWorld world;
  GradientSum sum(weights, world);
  const auto twice = [&] {
    for (int i = 0; i < 2; ++i) weights[0].tensor.sum().backward();
  };
  EXPECT_THROW(sum.during(twice), std::logic_error);
}

TEST(GradientSum, IsThatOfAllProcesses) {
  if (world_backend().empty()) GTEST_SKIP() << "this build has no gloo";
  const auto errors = in_world(2, [](const std::shared_ptr<World>& world) {
    const at::AutoGradMode with_grad(true);
    const std::vector<Weight> weights{weight("a", large), weight("b", large), weight("c", 2), weight("none", 1)};
    GradientSum sum(weights, *world);
    for (int step = 0; step < 3; ++step) {
      const double factor = double(world->rank() + 1);
      sum.during([&] {
        Tensor loss = weights[0].tensor.sum() * factor + weights[2].tensor.sum() * (10 * factor);
        if (world->rank() == 1) loss = loss + weights[1].tensor.sum();
        loss.backward();
      });
      sum.finish();
      const std::vector<float> wanted{3, 1, 30};
      for (size_t i = 0; i < wanted.size(); ++i) EXPECT_TRUE(weights[i].tensor.grad().eq(wanted[i]).all().item<bool>()) << i;
      EXPECT_FALSE(weights[3].tensor.grad().defined());
      for (const Weight& w : weights) w.tensor.mutable_grad().reset();
    }
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

}  // namespace
}  // namespace brume::test
