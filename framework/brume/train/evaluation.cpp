#include "brume/train/evaluation.h"
#include "brume/diffusion/sampling_run.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "brume/numerics/frechet.h"

namespace brume {
namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

/// The mean of what is known.
double mean(const std::vector<double>& values) {
  double sum = 0;
  int64_t count = 0;
  for (const double v : values)
    if (!std::isnan(v)) sum += v, ++count;
  return count > 0 ? sum / double(count) : unknown;
}

/// Values in [-1, 1] as a picture of 8 bits holds them.
Tensor rounded(const Tensor& images) { return ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1; }

}  // namespace

void FeatureSet::add(const Tensor& images, const std::vector<Annotation>& annotations) {
  const Classifier::Output y = classifier_->classify(images);
  features_.push_back(y.features.to(at::kCPU, at::kDouble));
  std::vector<int64_t> rows;
  std::vector<Annotation> known;
  for (size_t i = 0; i < annotations.size(); ++i) {
    labels_.push_back(annotations[i].label);
    if (annotations[i].label >= 0) rows.push_back(int64_t(i)), known.push_back(annotations[i]);
  }
  if (!known.empty()) scores_.add(y.logits.cpu().index_select(0, at::tensor(rows)), classifier_->labels(known));
}

double FeatureSet::accuracy() const { return scores_.images > 0 ? scores_.accuracy() : unknown; }

Tensor FeatureSet::features() const { return features_.empty() ? at::empty({0, 0}, at::kDouble) : at::cat(features_); }

SetFigures figures(const FeatureSet& set, const FeatureSet& real) {
  SetFigures f;
  f.images = set.images();
  f.accuracy = set.accuracy();
  const Tensor features = set.features();
  const bool comparable = set.images() > 1 && real.images() > 1;
  f.frechet = &set == &real ? 0
              : comparable  ? frechet_distance(feature_statistics(features), feature_statistics(real.features()))
                            : unknown;
  f.spread_by_class = class_spread(features, set.labels(), set.classifier().options().classes);
  f.spread = mean(f.spread_by_class);
  return f;
}

FeatureSet data_features(const ClassifierPipeline& classifier, const Dataset& data, const std::string& name, int64_t limit,
                         const std::function<bool(int64_t, int64_t)>& progress) {
  const int64_t classes = int64_t(data.classes().size());
  if (classes > 0 && classes != classifier.options().classes)
    throw ConfigError(fmt::format("{} has {} classes and the classifier {}", name, classes, classifier.options().classes));
  const int64_t count = data.size() == 0 ? limit : limit > 0 ? std::min(limit, data.size()) : data.size();
  FeatureSet set(classifier);
  for_each_batch(data, classifier.options().image, 256, count, [&](const Tensor& images, const std::vector<Annotation>& annotations) {
    set.add(images, annotations);
    if (progress && !progress(set.images(), count)) throw Interrupted();
    return true;
  });
  return set;
}

FeatureSet sample_features(const ClassifierPipeline& classifier, const Pipeline& model, const SampleOptions& options, int64_t count,
                           int64_t batch, uint64_t seed, const std::function<bool(int64_t, const Step&)>& observer,
                           const ModelSource& models) {
  const ModelOptions& m = model.options();
  const ClassifierOptions& c = classifier.options();
  const int64_t classes = int64_t(requestable_classes(model, options, models).size());
  if (m.image != c.image)
    throw ConfigError(fmt::format("the model makes {} images, and the classifier takes {}", m.image.text(), c.image.text()));
  if (classes > 0 && classes != c.classes)
    throw ConfigError(fmt::format("the model has {} classes and the classifier {}", classes, c.classes));
  const int64_t piece = options.noise_order == NoiseOrder::batch ? count : std::min(batch, count);
  FeatureSet set(classifier);
  for (int64_t first = 0; first < count; first += piece) {
    SampleRequest request;
    request.first = first;
    request.seed = seed;
    request.models = &models;
    request.batch = piece;
    for (int64_t i = first; i < std::min(first + piece, count); ++i) request.images.push_back({classes > 0 ? i % classes : -1, ""});
    if (observer) request.observer = [&](int64_t inner, const Step& step) { return observer(first + inner, step); };
    set.add(rounded(sample_images(model, request, options)), request.images);
  }
  return set;
}

}  // namespace brume
