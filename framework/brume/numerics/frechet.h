#pragma once
// Figures of sets of feature vectors: how far apart two sets are, and how varied one is.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "brume/core/feature_statistics.h"

namespace brume {

/// Returns mean and covariance, computed in float64. features: [N, F], N >= 2, any floating dtype. Throws std::invalid_argument on another
/// shape.
FeatureStatistics feature_statistics(const at::Tensor& features);

/// Returns the squared Fréchet (2-Wasserstein) distance of two Gaussians (Dowson & Landau 1982), with Inception features the "FID"
/// of Heusel et al. 2017, eq. 6:
///
///   |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2))
///
/// The last trace is taken as that of (A C2 A)^(1/2) with A = C1^(1/2): symmetric, so that singular covariances need no offset.
double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b);

/// Returns the mean Euclidean distance of the pairs within each class; a class with fewer than two members gives NaN. features: [N, F];
/// labels: one per row, others than 0 ... classes - 1 count for nothing.
std::vector<double> class_spread(const at::Tensor& features, const std::vector<int64_t>& labels, int64_t classes);

}  // namespace brume
