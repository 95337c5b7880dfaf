#pragma once
// How good samples are, by the features of an extractor.
#include <functional>
#include <string>
#include <vector>

#include "brume/core/features.h"
#include "brume/diffusion/class_names.h"
#include "brume/diffusion/pipeline.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/distributed/world.h"
#include "brume/train/class_scores.h"

namespace brume {

/// The features of a set of images. Grows batch by batch; the images are not kept.
class FeatureSet {
 public:
  explicit FeatureSet(const Features& extractor) : extractor_(&extractor) {}
  /// Adds the features of images, [B, C, H, W] in [-1, 1]; an annotation without a class counts in the features only. Throws ConfigError if
  /// a class is none that the extractor tells apart.
  void add(const Tensor& images, const std::vector<Annotation>& annotations);

  /// Brings the images that the processes have to all of them, in the order of the ranks. Collective.
  void gather(World& world);
  int64_t images() const { return int64_t(labels_.size()); }
  /// Returns the share of the images with a class that the extractor puts there; NaN if none has one, or if it does not classify.
  double accuracy() const;
  Tensor features() const;  ///< [N, D] float64
  const std::vector<int64_t>& labels() const { return labels_; }
  /// Returns the number of the extractor's classes; if it does not classify, of those up to the largest in the set.
  int64_t classes() const;

 private:
  const Features* extractor_;
  ClassScores scores_;
  std::vector<int64_t> labels_;
  std::vector<Tensor> features_;
};

/// The figures of a set. A figure that cannot be measured is NaN.
struct SetFigures {
  int64_t images = 0;
  double accuracy = 0;
  double frechet = 0;                   ///< Fréchet distance of the features to those of the real images
  std::vector<double> spread_by_class;  ///< mean distance of two feature vectors of a class
  double spread = 0;                    ///< their mean
};
/// Returns the figures of a set, compared with `real`: the set itself for the real images.
SetFigures figures(const FeatureSet& set, const FeatureSet& real);

/// Returns the shape of the images that are read for an extractor: `images` if it takes any height and width, else its own.
ImageShape images_for(const Features& extractor, const ImageShape& images);

/// Returns the features of the first `limit` images of a data set (0 = all), which has images of `shape`. `progress` is called with the
/// number that is done and the number of all; if it returns false, Interrupted is thrown. Throws ConfigError, calling the set `name`, if
/// it has another number of classes than the extractor. The processes of `world` divide the images.
FeatureSet data_features(const Features& extractor, const Dataset& data, const ImageShape& shape, const std::string& name, int64_t limit,
                         const std::function<bool(int64_t done, int64_t count)>& progress, World& world = *world_of_one());

/// Returns the classes that sets are compared by: the extractor's if it classifies, else those of the real images, called `name`.
ClassList compared_classes(const Features& extractor, const Dataset& real, const std::string& name);

/// Returns a request of `count` samples, the classes in turn, for sample_batches().
SampleRequest samples_in_turn(const Pipeline& model, const SampleOptions& options, int64_t count, int64_t batch, uint64_t seed,
                              const std::function<bool(int64_t first, const Step&)>& observer, const ModelSource& models);

/// Leaves in a request the images of a part of them, which are as in the whole.
void keep_part(SampleRequest& request, const NumberRange& part);

/// Returns the features of `count` samples, the classes in turn, `batch` at a time, rounded to 8 bits. The observer's first argument is the
/// number of an image in this process's part of them; guidances find their models in `models`. Classes are numbered as `known` has them.
/// Throws ConfigError if the model makes other images, or has other classes, than the extractor.
FeatureSet sample_features(const Features& extractor, const Pipeline& model, const SampleOptions& options, int64_t count, int64_t batch,
                           uint64_t seed, const std::function<bool(int64_t first, const Step&)>& observer,
                           const ModelSource& models = no_models(), const ClassList& known = {}, World& world = *world_of_one());

}  // namespace brume
