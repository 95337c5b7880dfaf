#pragma once
// One step of the exponential integrators in lambda = -log sigma (half the log-SNR): DPM-Solver and its relatives (Lu et al.
// 2022a, 2022b; Zhang & Chen 2023; Gonzalez et al. 2023).
#include <cstdint>
#include <vector>

#include "brume/core/tensor.h"

namespace brume {

/// What is taken for smooth along lambda: the estimate of x0 ("++"), or of the noise.
enum class Prediction { data, noise };

/// x' = decay x + coef_f F + coef_slope F' + coef_curvature F'' + noise_std n, where F is the prediction at the start of a step of length
/// h = lambda(to) - lambda(from), F' and F'' its derivatives by lambda times h and h^2, and n is N(0, 1).
struct ExponentialStep {
  double decay;           ///< multiplies x
  double coef_f;          ///< multiplies the prediction F
  double coef_slope;      ///< multiplies F': the exact integral
  double coef_midpoint;   ///< multiplies F' if coef_f / 2 stands for the integral (DPM-Solver-2's "midpoint")
  double coef_curvature;  ///< multiplies F''
  double noise_std;       ///< standard deviation of fresh noise
};

/// Returns the step from sigma `from` to `to` > 0. `eta` = 0 solves the probability-flow ODE, 1 the reverse SDE of the diffusion, and
/// what lies between interpolates (for noise prediction 0 or 1 only).
ExponentialStep exponential_step(Prediction prediction, double from, double to, double eta);

/// Returns int_a^b L_j(u) e^(c u) du e^(-c b) for each j, L_j being the Lagrange polynomials through `nodes`: the weights of an
/// exponential Adams method of any order.
std::vector<double> exponential_adams_weights(const std::vector<double>& nodes, double a, double b, double c);

/// Returns int_a^b L_j(u) du for each j.
std::vector<double> adams_weights(const std::vector<double>& nodes, double a, double b);

/// Returns sum_j weights[j] * values[j].
Tensor weighted_sum(const std::vector<double>& weights, const std::vector<Tensor>& values);

/// Returns the solution of the square system `matrix` x = `right`, by elimination with pivoting.
std::vector<double> solve(std::vector<std::vector<double>> matrix, std::vector<double> right);

}  // namespace brume
