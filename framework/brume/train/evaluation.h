#pragma once
// How good samples are, in the eyes of a classifier.
#include <functional>
#include <string>
#include <vector>

#include "brume/diffusion/pipeline.h"
#include "brume/train/class_scores.h"

namespace brume {

/// A set of images as a classifier sees it. Grows batch by batch; the images are not kept.
class FeatureSet {
 public:
  explicit FeatureSet(const ClassifierPipeline& classifier) : classifier_(&classifier) {}
  /// images: [B, C, H, W] in [-1, 1]; an annotation without a class counts in the features only.
  void add(const Tensor& images, const std::vector<Annotation>& annotations);

  int64_t images() const { return int64_t(labels_.size()); }
  /// Share of the images with a class that the classifier puts there; NaN where none has one.
  double accuracy() const;
  Tensor features() const;  ///< [N, F] float64
  const std::vector<int64_t>& labels() const { return labels_; }
  const ClassifierPipeline& classifier() const { return *classifier_; }

 private:
  const ClassifierPipeline* classifier_;
  ClassScores scores_;
  std::vector<int64_t> labels_;
  std::vector<Tensor> features_;
};

/// What is reported of a set. Where a figure cannot be had it is NaN.
struct SetFigures {
  int64_t images = 0;
  double accuracy = 0;
  double frechet = 0;                   ///< Fréchet distance of the features to those of the real images
  std::vector<double> spread_by_class;  ///< mean distance of two feature vectors of a class
  double spread = 0;                    ///< their mean
};
/// `real` is what it is compared with: the set itself for the real images.
SetFigures figures(const FeatureSet& set, const FeatureSet& real);

/// The first `limit` images of a data set (0 = all). `progress` is told how many are done of how many, and stops with false
/// (Interrupted). Throws ConfigError, calling the set `name`, where its classes are not the classifier's.
FeatureSet data_features(const ClassifierPipeline& classifier, const Dataset& data, const std::string& name, int64_t limit,
                         const std::function<bool(int64_t done, int64_t count)>& progress);

/// `count` samples, the classes in turn, `batch` at a time, as 8-bit pictures would hold them. The observer's first argument numbers
/// the images of the whole run; `models` is where guidances find their own. Throws ConfigError where the model makes other images, or has
/// other classes, than the classifier.
FeatureSet sample_features(const ClassifierPipeline& classifier, const Pipeline& model, const SampleOptions& options, int64_t count,
                           int64_t batch, uint64_t seed, const std::function<bool(int64_t first, const Step&)>& observer,
                           const ModelSource& models = no_models());

}  // namespace brume
