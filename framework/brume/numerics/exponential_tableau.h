#pragma once
// Tableaus of exponential Runge-Kutta methods for dx / d lambda = D(x) - x, lambda = -log sigma.
//
//   x_i = e^(-c_i h) x + h sum_j a_ij D_j,   x' = e^(-h) x + h sum_i b_i D_i
#include <vector>

namespace brume {

/// The methods; `c2` and `c3` are the places of the second and third stage if the method leaves them free.
enum class ExponentialMethod {
  euler,                ///< order 1
  res_2s,               ///< order 2 (Hochbruck & Ostermann 2005, sec. 5.1; Zhang et al. 2023, "Improved order analysis", RES)
  dpmpp_2s,             ///< order 2, weights by phi_1 alone (ibid., "weak"; Lu et al. 2022b, alg. 1)
  res_3s,               ///< order 3 (Hochbruck & Ostermann 2005, eq. 5.8)
  dpmpp_3s,             ///< order 3 at c3 = 2/3 (ibid., eq. 5.9; Lu et al. 2022a, alg. 2)
  etd_rk3,              ///< order 3 (Cox & Matthews 2002, eq. 23-25)
  etd_rk4,              ///< order 4 (Cox & Matthews 2002, eq. 26-29)
  krogstad,             ///< order 4 (Krogstad 2005, eq. 51)
  strehmel_weiner,      ///< order 4 (Hochbruck & Ostermann 2005, eq. 5.18)
  hochbruck_ostermann,  ///< order 4, five stages (Hochbruck & Ostermann 2005, eq. 5.19)
  lawson_4              ///< order 4: Runge and Kutta's in the variable e^lambda x (Lawson 1967)
};

struct ExponentialTableau {
  std::vector<double> c;               ///< places of the stages within the step, the first 0
  std::vector<std::vector<double>> a;  ///< row i: the weights of stages 0 ... i-1
  std::vector<double> b;
};

/// Returns the tableau of a step of length h > 0.
ExponentialTableau exponential_tableau(ExponentialMethod method, double h, double c2, double c3);

/// Returns the order of convergence.
int order_of(ExponentialMethod method, double c3);

}  // namespace brume
