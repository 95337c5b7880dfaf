#pragma once

namespace brume {

/// Returns P(X <= x) for X ~ Beta(a, b): the regularised incomplete beta function, by Lentz's continued fraction (NIST DLMF 8.17.22).
double beta_cdf(double x, double a, double b);

/// Returns its inverse, to the last digits.
double beta_quantile(double p, double a, double b);

}  // namespace brume
