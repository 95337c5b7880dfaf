#pragma once
// A set of feature vectors as a Gaussian.
#include "brume/core/tensor.h"

namespace brume {

struct FeatureStatistics {
  Tensor mean;        ///< [F] float64
  Tensor covariance;  ///< [F, F] float64, unbiased (divided by N - 1)
};

}  // namespace brume
