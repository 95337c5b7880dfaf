#pragma once
// What the tests of optimizers share: weights with reproducible values and gradients.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>

#include <string>
#include <vector>

#include "brume/core/optimizer.h"
#include "support/registry.h"

namespace brume::test {

/// Weights of several shapes, N(0, 1).
inline std::vector<Weight> some_weights(uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  std::vector<Weight> weights;
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{3, 2, 3, 3}, {7}, {200, 301}, {1}})
    weights.push_back(
        {"w" + std::to_string(weights.size()), at::randn(shape, random, at::TensorOptions().dtype(at::kFloat)).set_requires_grad(true)});
  return weights;
}

/// Sets every gradient to N(0, scale), the same for the same seed.
inline void set_gradients(const std::vector<Weight>& weights, uint64_t seed, double scale = 1) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  for (const Weight& w : weights) {
    Tensor t = w.tensor;
    t.mutable_grad() = at::randn(w.tensor.sizes(), random, at::TensorOptions().dtype(at::kFloat)) * scale;
  }
}

inline std::vector<Tensor> values(const std::vector<Weight>& weights) {
  std::vector<Tensor> all;
  for (const Weight& w : weights) all.push_back(w.tensor.detach().clone());
  return all;
}
inline void copy(const std::vector<Weight>& from, const std::vector<Weight>& to) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < from.size(); ++i) Tensor(to[i].tensor).copy_(from[i].tensor);
}
inline bool same(const std::vector<Weight>& a, const std::vector<Weight>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i].name != b[i].name || !at::equal(a[i].tensor.detach(), b[i].tensor.detach())) return false;
  return true;
}

}  // namespace brume::test
