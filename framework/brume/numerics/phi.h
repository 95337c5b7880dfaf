#pragma once
// The phi functions of exponential integrators (Hochbruck & Ostermann 2010, "Exponential integrators", eq. 2.10).

namespace brume {

/// Returns phi_k(z), k = 0 to 8: phi_0(z) = e^z, phi_k(z) = (phi_(k-1)(z) - 1 / (k-1)!) / z; by their series if the difference would
/// cancel.
double phi(int k, double z);

}  // namespace brume
