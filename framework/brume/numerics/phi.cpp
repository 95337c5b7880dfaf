#include "brume/numerics/phi.h"

#include <cmath>

namespace brume {

double phi(int k, double z) {
  if (k == 0) return std::exp(z);
  if (k == 1) return z == 0 ? 1 : std::expm1(z) / z;
  double factorial = 1;  // k!
  for (int i = 2; i <= k; ++i) factorial *= i;
  if (std::abs(z) < 2) {
    double term = 1 / factorial, sum = 0;  // z^n / (n + k)!
    for (int n = 1; n < 40; ++n) {
      sum += term;
      term *= z / (n + k);
    }
    return sum;
  }
  return (phi(k - 1, z) - double(k) / factorial) / z;
}

}  // namespace brume
