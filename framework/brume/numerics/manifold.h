#pragma once
// How far two sets of feature vectors cover each other, by balls around their members that reach to the K-th nearest neighbour.
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace brume {

/// Precision and recall: Kynkäänniemi et al. 2019, "Improved precision and recall metric", eq. 1 and 2 (d <= radius). Density and coverage:
/// Naeem et al. 2020, "Reliable fidelity and diversity metrics for generative models", eq. 5 and 6 (d < radius).
struct ManifoldScores {
  double precision = 0;  ///< share of the fake images within a ball of a real one
  double recall = 0;     ///< share of the real images within a ball of a fake one
  double density = 0;    ///< number of balls of real images around a fake one, divided by K; mean over the fake ones
  double coverage = 0;   ///< share of the real images with a fake one in their ball
};

/// Returns the scores of `fake` against `real`. real: [N, F], fake: [M, F], computed with as float32 rows; `k`: which neighbour, without
/// the image itself, ends a ball. Distances come from matrix products in float64, 256 rows at a time; those that rounding could decide are
/// computed from differences, so that the counts are exact and do not depend on the order of a product's sums. Memory: 256 x max(N, M)
/// float64 in addition to the rows. Throws std::invalid_argument if N or M is not above k, or if the widths differ.
ManifoldScores manifold_scores(const at::Tensor& real, const at::Tensor& fake, int64_t k);

}  // namespace brume
