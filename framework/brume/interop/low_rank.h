#pragma once
// What the adapters of low rank share.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "brume/config/fields.h"
#include "brume/interop/weight_change.h"

namespace brume {

struct LowRankOptions {
  int64_t rank = 16;
  double alpha = 0;
  std::vector<std::string> targets{"attention"};
  void declare(Fields& f);
};

/// Returns U(-1, 1) / sqrt(fan in) of a shape [rows, in, ...], as PyTorch's layers begin.
at::Tensor uniform_rows(std::vector<int64_t> shape, at::Generator& random);
/// Returns N(0, std^2).
at::Tensor normal_rows(std::vector<int64_t> shape, double std, at::Generator& random);

/// Returns the LoRA of rank `rank` that is nearest to a change [out, in] or [out, in, k, k] of a weight, by its singular values (Eckart &
/// Young 1936), with alpha = rank: up = U sqrt(S), down = sqrt(S) V^T. The rank is not more than the smaller side.
WeightChange nearest_lora(const at::Tensor& delta, int64_t rank);

}  // namespace brume
