#pragma once
// The integrals of DPM-Solver-v3 (Zheng et al. 2023, eq. 9 to 14) over the empirical statistics l, s and b of a model, in lambda = -log
// sigma and the frame x = x0 + sigma noise.
#include <vector>

#include "brume/core/tensor.h"

namespace brume {

/// The statistics, float64 [points, ...], each number's own or one for all.
struct ModelStatistics {
  Tensor l{}, s{}, b{};
};

/// L = int l, S = int s, I = int e^(L+S), B = int e^-S b and C = int e^(L+S) B by trapezoids over a grid.
class StatisticsGrid {
 public:
  StatisticsGrid(std::vector<double> lambda, ModelStatistics statistics);

  double lambda(int64_t index) const { return lambda_[size_t(index)]; }
  int64_t size() const { return int64_t(lambda_.size()); }

  /// f = sigma eps - l x at a point of the grid.
  struct Point {
    int64_t index;
    Tensor f;
  };
  Point point(int64_t index, const Tensor& x, const Tensor& x0) const;

  /// Returns x at grid point `to`, from x at points[0]:
  ///
  ///   e^(L_s - L_t) x - e^(-L_t - S_s) (I_t - I_s) g_s - e^-L_t (C_t - C_s - B_s (I_t - I_s)) - e^(L_s - L_t) sum_k W_k g^(k) / k!
  ///   g_q = e^(S_s - S_q) f_q - e^S_s (B_q - B_s),   W_k = int_s^t e^(L + S - L_s - S_s) (lambda - lambda_s)^k dlambda
  ///
  /// g^(k) is that of the polynomial through the points' g, or `pseudo`, k! times their divided difference.
  Tensor moved(const std::vector<Point>& points, const Tensor& x, int64_t to, bool pseudo) const;

 private:
  Tensor running(const Tensor& f, int64_t first = 0) const;

  std::vector<double> lambda_;
  Tensor l_, L_, S_, I_, B_, C_;
};

}  // namespace brume
