#pragma once
// Mean and covariance of feature vectors that are seen once, in float64.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "brume/core/feature_statistics.h"

namespace brume {

/// Sums of rows and of their outer products, without keeping the rows: memory for two [F, F] matrices. Rows are added in blocks of 256 in
/// the order in which they come, so the bits of the result do not depend on how the rows are batched. The mean of the first block is
/// subtracted before the products (Chan, Golub and LeVeque 1983, shifted data), which keeps the covariance accurate.
class MomentSum {
 public:
  /// Adds rows, [B, F], any floating dtype. Throws std::invalid_argument if F is another than before.
  void add(const at::Tensor& rows);
  int64_t count() const { return count_ + waiting_count_; }
  /// Returns mean and unbiased covariance. Throws std::invalid_argument if there are fewer than two rows.
  FeatureStatistics statistics() const;

 private:
  static constexpr int64_t block = 256;
  struct Sums {
    at::Tensor shift, sum, products;  // of x - shift
    void add(const at::Tensor& rows);
  };
  Sums sums_;
  int64_t count_ = 0, waiting_count_ = 0, width_ = -1;
  std::vector<at::Tensor> waiting_;  // rows that do not fill a block yet
};

}  // namespace brume
