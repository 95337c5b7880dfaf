#pragma once
// The squared maximum mean discrepancy of two sets of feature vectors (Gretton et al. 2012, "A kernel two-sample test"), in float64.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <variant>
#include <vector>

namespace brume {

/// k(x, y) = (gamma <x, y> + coef0)^degree: the kernel of KID (Binkowski et al. 2018, section 4).
struct PolynomialKernel {
  int64_t degree = 3;
  double gamma = 0;  ///< 0 = 1 / F
  double coef0 = 1;
};
/// k(x, y) = exp(-|x - y|^2 / (2 sigma^2)): the kernel of CMMD (Jayasumana et al. 2024, section 4).
struct GaussianKernel {
  double sigma = 10;
};
using Kernel = std::variant<PolynomialKernel, GaussianKernel>;

/// Estimates of the squared discrepancy of two sets.
struct SquaredMmd {
  double biased = 0;          ///< Gretton et al. 2012, eq. 5
  double unbiased = 0;        ///< Gretton et al. 2012, eq. 3
  double standard_error = 0;  ///< of `unbiased`, to the first order of Hoeffding's decomposition
};

/// Returns the estimates for x: [M, F] and y: [N, F] of any floating dtype. Kernels are computed in float64, 512 x 512 at a time, and
/// summed in the order of the rows. Throws std::invalid_argument if M or N is below 2, or if the widths differ.
SquaredMmd squared_mmd(const at::Tensor& x, const at::Tensor& y, const Kernel& kernel);

/// Row numbers of x and of y.
using Subset = std::pair<std::vector<int64_t>, std::vector<int64_t>>;

/// Returns `count` pairs of `size` different rows, drawn from M and N rows by a generator with this seed. Throws std::invalid_argument if
/// `size` is larger than M or N.
std::vector<Subset> draw_subsets(int64_t count, int64_t size, int64_t m, int64_t n, uint64_t seed);

/// Mean and population standard deviation of the unbiased estimates of subsets.
struct SubsetMmd {
  double mean = 0, std = 0;
};
SubsetMmd squared_mmd_of_subsets(const at::Tensor& x, const at::Tensor& y, const std::vector<Subset>& subsets, const Kernel& kernel);

}  // namespace brume
