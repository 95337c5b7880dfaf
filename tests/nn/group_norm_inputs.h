#pragma once
// What the tests of group_norm_silu share: inputs of all shapes, gradients, and the instruction sets of this processor.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>
#include <vector>

#include "brume/nn/ops/group_norm.h"
#include "brume/nn/ops/isa.h"

namespace brume::test {

using brume::nn::group_norm_silu;
using brume::nn::Isa;

constexpr double eps = 1e-5;

inline at::Tensor normal_values(std::vector<int64_t> sizes, uint64_t seed, at::ScalarType dtype = at::kDouble) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::TensorOptions().dtype(at::kDouble)).to(dtype);
}

struct Inputs {
  at::Tensor x, gamma, beta, scale, shift;

  Inputs(std::vector<int64_t> sizes, double offset, bool modulated, uint64_t seed = 1) {
    const int64_t batch = sizes[0], channels = sizes[1];
    x = normal_values(sizes, seed) + offset;
    gamma = 1 + 0.2 * normal_values({channels}, seed + 1);
    beta = 0.3 * normal_values({channels}, seed + 2);
    if (!modulated) return;
    scale = 0.3 * normal_values({batch, channels}, seed + 3);
    shift = 0.5 * normal_values({batch, channels}, seed + 4);
  }
  std::vector<at::Tensor*> all() { return {&x, &gamma, &beta, &scale, &shift}; }
  std::vector<at::Tensor> leaves() {
    std::vector<at::Tensor> result;
    for (at::Tensor* t : all()) {
      if (!t->defined()) continue;
      *t = t->detach().set_requires_grad(true);
      result.push_back(*t);
    }
    return result;
  }
  /// x in `dtype`, parameters in `parameters`; the same values (after rounding) in float64 in `exact`.
  Inputs as(at::ScalarType dtype, at::ScalarType parameters) const {
    Inputs result = *this;
    for (at::Tensor* t : result.all()) {
      if (t->defined()) *t = t->to(t == &result.x ? dtype : parameters);
    }
    return result;
  }
  at::Tensor run(int64_t groups, bool silu) const { return group_norm_silu(x, groups, gamma, beta, eps, silu, scale, shift); }
};

inline std::vector<at::Tensor> gradients(const at::Tensor& y, const std::vector<at::Tensor>& leaves, const at::Tensor& dy,
                                         bool create = false) {
  return torch::autograd::grad({y}, leaves, {dy}, create, create);
}

/// ||value - exact|| / (||exact|| + floor)
inline double error(const at::Tensor& value, const at::Tensor& exact, double floor = 0) {
  return (value.to(at::kDouble) - exact).norm().item<double>() / (exact.norm().item<double>() + floor);
}

inline std::vector<Isa> available() {
  std::vector<Isa> result;
  for (Isa isa : {Isa::generic, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx}) {
    if (brume::nn::isa_supported(isa)) result.push_back(isa);
  }
  return result;
}

class GroupNorm : public ::testing::Test {
 protected:
  void TearDown() override {
    brume::nn::set_isa(isa_);
    at::set_num_threads(threads_);
  }

 private:
  Isa isa_ = brume::nn::isa();
  int threads_ = at::get_num_threads();
};

struct Shape {
  std::vector<int64_t> sizes;
  int64_t groups;
};

inline const std::vector<Shape> shapes = {
    {{1, 6, 5, 5}, 3},      {{2, 6, 1, 1}, 3},   {{2, 40, 7, 7}, 8}, {{3, 32, 1, 1}, 8},  {{5, 64, 8, 8}, 32},
    {{16, 48, 3, 5}, 6},    {{1, 33, 2, 3}, 11}, {{2, 4, 6, 6}, 4},  {{3, 100, 4, 4}, 1}, {{1, 32, 80, 80}, 32},
    {{2, 320, 24, 24}, 32}, {{2, 40, 49}, 8},    {{1, 1, 1, 9}, 1},  {{2, 64, 1}, 32},
};

inline std::string describe(const Shape& shape, const std::string& rest) {
  std::string text = "[";
  for (int64_t size : shape.sizes) text += std::to_string(size) + " ";
  return text + "] groups " + std::to_string(shape.groups) + " " + rest;
}

}  // namespace brume::test
