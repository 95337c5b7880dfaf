#pragma once
// Moving averages whose length grows with the training, and others made of them afterwards (Karras et al. 2024, "Analyzing and Improving
// the Training Dynamics of Diffusion Models", sec. 3 and app. C).
//
//   average(t) = sum of w(s) p(s),   p(s) ~ s^exponent, s in [0, t];   length = std of p / t
#include <vector>

namespace brume {

/// Returns the exponent of an average of this length, 0 < length < 0.288 (eq. 127: the largest root of a cubic).
double power_exponent(double length);
/// Returns the length of an average (eq. 126): sqrt((exponent + 1) / ((exponent + 2)^2 (exponent + 3))).
double power_length(double exponent);

/// An average of one length at one time.
struct PowerAverage {
  double time = 0;    ///< updates, or images
  double length = 0;  ///< over `time`
};
/// Returns the integral of the product of two averages' densities (eq. 148 to 150).
double power_product(const PowerAverage& a, const PowerAverage& b);
/// Returns the weights, of sum 1, of `known` whose sum is nearest to `wanted` in the squared difference of densities (algorithm 3). Throws
/// std::invalid_argument if the list is empty, or two are the same.
std::vector<double> post_hoc_weights(const std::vector<PowerAverage>& known, const PowerAverage& wanted);

}  // namespace brume
