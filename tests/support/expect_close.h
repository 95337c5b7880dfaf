#pragma once
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "brume/core/tensor.h"

namespace brume::test {

/// max|got - wanted| <= share * max(1, max|wanted|), printed.
inline void expect_close(const Tensor& got, const Tensor& wanted, double share, const std::string& what) {
  ASSERT_EQ(got.sizes(), wanted.sizes()) << what;
  const double error = (got - wanted).abs().max().item<double>(), allowed = share * std::max(1.0, wanted.abs().max().item<double>());
  fmt::print("{}: largest error {:.2e} of {:.2e} allowed\n", what, error, allowed);
  EXPECT_LE(error, allowed) << what;
}

}  // namespace brume::test
