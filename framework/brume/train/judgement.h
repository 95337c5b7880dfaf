#pragma once
// How often images are what was asked for, in the eyes of a metric.
#include <functional>
#include <string>
#include <vector>

#include "brume/core/metric.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/distributed/world.h"

namespace brume {

/// Verdicts counted: all together, and group by group.
class Tally {
 public:
  struct Part {
    std::string name;
    int64_t asked = 0, right = 0;
    double share() const { return asked > 0 ? double(right) / double(asked) : 0; }
  };
  struct Group {
    std::string name;         ///< "all", or that of the verdicts
    Part whole;               ///< all parts right
    std::vector<Part> parts;  ///< in the order in which they came up
  };
  /// One image and what was said of it.
  struct Judged {
    std::string caption;
    Verdict verdict;
  };

  void add(const Annotation& asked, Verdict verdict);
  /// Adds the verdicts on images, [B, C, H, W] in [-1, 1] on the host, as 8-bit pictures would hold them.
  void judge(const Metric& metric, const Tensor& images, const std::vector<Annotation>& asked);

  /// Brings the verdicts of all processes to each of them, in the order of the ranks. Collective.
  void gather(World& world);

  int64_t images() const { return int64_t(judged_.size()); }
  /// Returns "all" first, then those that came up, by name; without "all" alone if there is one group.
  std::vector<Group> groups() const;
  const std::vector<Judged>& judged() const { return judged_; }

 private:
  std::vector<Judged> judged_;
};

/// What the first `count` images of a data set are asked to be, and what a metric says of those images themselves.
struct JudgedSet {
  std::vector<Annotation> asked;
  Tally tally;
};
JudgedSet judge_data(const Metric& metric, const Dataset& data, const ImageShape& shape, int64_t count);

/// Judges one sample for each of `asked`, `request.batch` at a time; `request` has the seed, the models and the observer, whose first
/// argument numbers the images of this process's part. The processes of `world` divide the images.
Tally judge_samples(const Metric& metric, const Pipeline& model, const SampleOptions& options, const std::vector<Annotation>& asked,
                    const SampleRequest& request, World& world = *world_of_one());

}  // namespace brume
