// adam and adamw against LibTorch's own.
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>

#include <algorithm>

#include "optimizers.h"

namespace brume::test {
namespace {

/// The largest difference over 50 steps on the same gradients.
template <class Theirs, class Options>
double difference(const std::string& yaml, Options options) {
  const std::vector<Weight> ours = some_weights(1), weights = some_weights(1);
  std::vector<Tensor> parameters;
  for (const Weight& w : weights) parameters.push_back(w.tensor);
  Theirs theirs(parameters, options);
  const auto opt = make<Optimizer>(yaml, {.weights = ours, .steps = 50});
  double largest = 0;
  for (int64_t step = 0; step < 50; ++step) {
    const double scale = step % 7 == 0 ? 1e-4 : 1;
    set_gradients(ours, uint64_t(step), scale);
    set_gradients(weights, uint64_t(step), scale);
    opt->update(step);
    theirs.step();
    for (size_t i = 0; i < ours.size(); ++i)
      largest = std::max(largest, (ours[i].tensor - weights[i].tensor).detach().abs().max().template item<double>());
  }
  EXPECT_FALSE(same(ours, some_weights(1)));
  return largest;
}

TEST(OptimizersOfTorch, Adam) {
  using torch::optim::Adam;
  using torch::optim::AdamOptions;
  EXPECT_LT((difference<Adam>("{type: adam, lr: 0.001, clip: 0}", AdamOptions(0.001))), 1e-6);
  EXPECT_LT((difference<Adam>("{type: adam, lr: 0.01, clip: 0, weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1.0e-6}",
                              AdamOptions(0.01).weight_decay(0.1).betas({0.8, 0.95}).eps(1e-6))),
            1e-6);
}

TEST(OptimizersOfTorch, AdamW) {
  using torch::optim::AdamW;
  using torch::optim::AdamWOptions;
  EXPECT_LT((difference<AdamW>("{type: adamw, lr: 0.001, clip: 0, weight_decay: 0}", AdamWOptions(0.001).weight_decay(0))), 1e-6);
  EXPECT_LT((difference<AdamW>("{type: adamw, lr: 0.01, clip: 0, weight_decay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1.0e-6}",
                               AdamWOptions(0.01).weight_decay(0.1).betas({0.8, 0.95}).eps(1e-6))),
            1e-6);
}

}  // namespace
}  // namespace brume::test
