// Every adapter of weights: its first values change nothing, all of its tensors learn, and its rank is the one that was asked for.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>

#include "brume/core/adapter.h"
#include "brume/interop/weight_change.h"
#include "support/registry.h"

namespace brume::test {
namespace {

class AdapterContract : public testing::TestWithParam<Specimen> {
 protected:
  Tensor normal(std::vector<int64_t> shape) { return at::randn(shape, random, at::TensorOptions().dtype(at::kFloat)); }
  WeightChange change_of(const Tensor& weight) {
    WeightChange change;
    for (const Weight& p : adapter->parameters(weight, random)) change.parts[p.name] = p.tensor;
    change.alpha = 1, change.has_alpha = true;
    return change;
  }
  at::Generator random = at::detail::createCPUGenerator(1);
  std::shared_ptr<const Adapter> adapter = make<Adapter>(GetParam().yaml);
};

const std::vector<std::vector<int64_t>> shapes{{24, 16}, {24, 16, 3, 3}, {24, 16, 1}};

TEST_P(AdapterContract, BeginsAsTheWeight) {
  if (adapter->word()) GTEST_SKIP() << "changes no weight";
  for (const auto& shape : shapes) {
    const Tensor w = normal(shape);
    const WeightChange change = change_of(w);
    EXPECT_EQ(problem_of("m", change, "w", w.sizes()), "");
    EXPECT_EQ(added_by(change, w, 1).abs().max().item<double>(), 0);
  }
}

TEST_P(AdapterContract, EveryTensorLearns) {
  if (adapter->word()) GTEST_SKIP() << "changes no weight";
  for (const auto& shape : shapes) {
    const Tensor w = normal(shape);
    WeightChange change = change_of(w);
    for (auto& [role, tensor] : change.parts) tensor = normal(tensor.sizes().vec()).set_requires_grad(true);
    (added_by(change, w, 1) * normal(shape)).sum().backward();
    for (const auto& [role, tensor] : change.parts) EXPECT_GT(tensor.grad().abs().max().item<double>(), 0) << role;
  }
}

TEST_P(AdapterContract, TheSameDrawsTheSame) {
  if (adapter->word()) GTEST_SKIP() << "changes no weight";
  const Tensor w = normal({24, 16});
  at::Generator one = at::detail::createCPUGenerator(3), two = at::detail::createCPUGenerator(3);
  const auto a = adapter->parameters(w, one), b = adapter->parameters(w, two);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].tensor.equal(b[i].tensor)) << a[i].name;
}

INSTANTIATE_TEST_SUITE_P(Registry, AdapterContract,
                         testing::ValuesIn(specimens("adapter", {"{type: lora, rank: 2}", "{type: dora, rank: 2}", "{type: loha, rank: 2}",
                                                                 "{type: lokr, rank: 2, factor: 4}", "{type: lokr, rank: 1, factor: 2}"})),
                         readable);

}  // namespace
}  // namespace brume::test
