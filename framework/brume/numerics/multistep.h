#pragma once
// What multistep solvers in lambda = -log sigma remember.
#include <cmath>
#include <utility>
#include <vector>

#include "brume/numerics/exponential.h"

namespace brume {

/// Returns what `prediction` calls F: (x - x0) / sigma, or x0.
Tensor predicted(Prediction prediction, const Tensor& x, const Tensor& x0, double sigma);

/// The last predictions, the newest first.
class PredictionHistory {
 public:
  PredictionHistory(Prediction prediction, int64_t longest) : prediction_(prediction), longest_(size_t(longest)) {}

  void add(const Tensor& x, const Tensor& x0, double sigma) { add_value(predicted(prediction_, x, x0, sigma), sigma); }
  void add_value(Tensor value, double sigma);
  /// Replaces the newest.
  void set_newest(Tensor value) { values_.front() = std::move(value); }
  const Tensor& newest() const { return values_.front(); }
  const std::vector<Tensor>& values() const { return values_; }
  const std::vector<double>& lambdas() const { return lambdas_; }
  size_t size() const { return values_.size(); }

  /// Returns the slope (from order 2 on) and the curvature (from order 3 on) by backward differences, times h and h^2 of the step to come;
  /// undefined if there are too few predictions (Lu et al. 2022b, app. B).
  std::pair<Tensor, Tensor> derivatives(int64_t order, double h) const;

 private:
  Prediction prediction_;
  size_t longest_;
  std::vector<Tensor> values_;
  std::vector<double> lambdas_;
};

}  // namespace brume
