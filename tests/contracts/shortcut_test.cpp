// The lengths of steps that the objective `shortcut` asks its network about.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "brume/core/objective.h"
#include "brume/numerics/extra_vector.h"
#include "support/registry.h"

namespace brume::test {
namespace {

/// Keeps the condition's vector of each call.
struct Asked final : TrainableModel {
  std::shared_ptr<const NoiseSchedule> noise = make<NoiseSchedule>("flow");
  std::shared_ptr<const Parameterization> flow = make<Parameterization>("flow");
  mutable std::vector<Tensor> vectors;
  Prediction predict(const Tensor& x, const std::vector<double>&, const Condition& condition) const override {
    vectors.push_back(condition.vector);
    return {x * 0.5, {}};
  }
  const NoiseSchedule& schedule() const override { return *noise; }
  const Parameterization& parameterization() const override { return *flow; }
};

constexpr int64_t images = 64, width = 8;

/// The lengths of each call of a loss: that of the two halves, then that of the whole.
std::vector<std::vector<double>> lengths(const std::string& yaml) {
  const Asked model;
  Training training;
  at::Generator random = at::detail::createCPUGenerator(3);
  const auto options = at::TensorOptions().dtype(at::kDouble);
  Condition condition;
  condition.vector = at::zeros({images, width}, options);
  make<Objective>(yaml)->loss(model, at::zeros({images, 1, 2, 2}, options), condition, training, random);
  std::vector<std::vector<double>> all;
  for (const Tensor& vectors : model.vectors)
    for (int64_t i = 0, call = int64_t(all.size()); i < images; ++i) {
      if (i == 0) all.emplace_back();
      double nearest = 0, least = 1e9;
      for (const double h : {0.0, 1.0, 0.5, 0.25, 0.125, 0.0625}) {
        const Tensor features = interval_features(at::tensor(std::vector<double>{h}, options), width);
        const double distance = (features[0] - vectors[i]).abs().max().item<double>();
        if (distance < least) nearest = h, least = distance;
      }
      EXPECT_LT(least, 1e-6);
      all[size_t(call)].push_back(nearest);
    }
  return all;
}

TEST(Shortcut, AsksForNoLengthThatNothingTeaches) {
  const auto all = lengths("{type: shortcut, halvings: 3, ratio: 1}");
  ASSERT_EQ(all.size(), 3u);
  for (size_t i = 0; i < size_t(images); ++i) {
    const double whole = all[2][i], half = whole > 0.25 ? whole / 2 : 0;  // 1/8 is the shortest, which only flow matching teaches
    EXPECT_TRUE(all[0][i] == half && all[1][i] == half) << "a step of " << whole << " from two of " << all[0][i] << ", " << all[1][i];
  }
  for (const double length : {1.0, 0.5, 0.25}) EXPECT_TRUE(std::count(all[2].begin(), all[2].end(), length) > 0) << length;
}

}  // namespace
}  // namespace brume::test
