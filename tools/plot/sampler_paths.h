#pragma once
// What samplers do with data of the plane whose denoiser is known: the paths of points, and the error against the number of calls.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "brume/core/sampler.h"
#include "brume/core/spacing.h"
#include "plot/mixture.h"

namespace brume::tools {

/// What all samplers that are compared share.
struct PathSetting {
  std::shared_ptr<const NoiseSchedule> schedule;
  std::shared_ptr<const Spacing> spacing;
  Mixture data;
  uint64_t seed;

  /// Returns noise [points, 2] at `sigma`.
  Tensor start(int64_t points, double sigma) const;
  /// Returns the samples that begin at x [B, 2]. `first`: number of the first point.
  Tensor sample(const Sampler& sampler, const Denoiser& denoiser, const Tensor& x, const std::vector<double>& sigmas, int64_t first = 0,
                std::function<bool(const Step&)> observer = {}) const;
};

/// Where a point is, in the frame of unit variance: x / sqrt(1 + sigma^2).
struct PathMoment {
  double sigma;
  Point at;
};

struct SamplerPaths {
  std::vector<std::vector<PathMoment>> points;  ///< a few, step by step
  std::vector<Point> samples;                   ///< ends of many more
};

/// Throws ConfigError if the sampler needs a model with a learned variance, or refuses the setting.
SamplerPaths paths_of(const Sampler& sampler, const PathSetting& setting, int64_t steps);

/// Number of network calls per point, and the error of the endpoint: root of the mean square distance.
struct SamplerCost {
  int64_t steps, calls;
  double error;
};

/// Ends of exact runs from the same starts. Spacings that keep their ends need one.
class ExactEnds {
 public:
  explicit ExactEnds(const PathSetting& setting) : setting_(setting) {}
  const Tensor& end(const Tensor& x, double from, double to);

 private:
  const PathSetting& setting_;
  std::map<std::pair<double, double>, Tensor> ends_;
};

/// Returns true if the error of a sampler falls with a power of its steps.
bool has_order(const Sampler& sampler);
/// Returns the errors of 4 to 128 steps. Throws Interrupted after Ctrl-C.
std::vector<SamplerCost> costs_of(const Sampler& sampler, const PathSetting& setting, ExactEnds& exact);

}  // namespace brume::tools
