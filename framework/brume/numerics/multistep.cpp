#include "brume/numerics/multistep.h"

#include <ATen/TensorOperators.h>

#include <algorithm>

namespace brume {

Tensor predicted(Prediction prediction, const Tensor& x, const Tensor& x0, double sigma) {
  return prediction == Prediction::data ? x0 : (x - x0) / sigma;
}

void PredictionHistory::add_value(Tensor value, double sigma) {
  values_.insert(values_.begin(), std::move(value));
  lambdas_.insert(lambdas_.begin(), -std::log(sigma));
  if (values_.size() > longest_) values_.pop_back(), lambdas_.pop_back();
}

std::pair<Tensor, Tensor> PredictionHistory::derivatives(int64_t order, double h) const {
  const int64_t usable = std::min(order, int64_t(values_.size()));
  if (usable < 2) return {};
  const double r0 = (lambdas_[0] - lambdas_[1]) / h;
  const Tensor newer = (values_[0] - values_[1]) / r0;
  if (usable < 3) return {newer, {}};
  const double r1 = (lambdas_[1] - lambdas_[2]) / h;
  const Tensor older = (values_[1] - values_[2]) / r1, bend = (newer - older) / (r0 + r1);
  return {newer + bend * r0, bend};
}

}  // namespace brume
