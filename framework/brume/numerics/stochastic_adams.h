#pragma once
// One move of SA-Solver (Xue et al. 2023, eq. 14 and 17): stochastic Adams in lambda = -log sigma, of data prediction or noise prediction.
#include "brume/numerics/multistep.h"

namespace brume {

/// A move from sigma `from` to `to` that began at x; the corrector repeats it with the same noise.
struct AdamsMove {
  Tensor x, noise;  ///< N(0, 1); undefined = none
  double from = 0, to = 0;
  double tau = 0;  ///< share of the noise: 0 = the ODE, 1 = the reverse SDE
};

/// Returns the end of the move, by the newest `order` predictions; in the corrector the newest of them is the one at the end.
///
///   data:  x' = e^(-tau^2 h) (to/from) x + sum_j b_j D_j + to sqrt(1 - e^(-2 tau^2 h)) noise
///          b_j = (1 + tau^2) int L_j(lambda) e^(-(1 + tau^2) (lambda' - lambda)) d lambda
///   noise: x' = x - sum_j b_j e_j + tau to sqrt(e^(2 h) - 1) noise,  e = (x - D) / sigma
///          b_j = (1 + tau^2) int L_j(lambda) e^(-lambda) d lambda
///
/// `halved` takes h^2 / 2 for the integral of the slope of two data predictions, the authors' change for few steps.
Tensor adams_moved(const PredictionHistory& past, Prediction prediction, const AdamsMove& move, int64_t order, bool halved);

}  // namespace brume
