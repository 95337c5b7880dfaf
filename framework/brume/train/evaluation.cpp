#include "brume/train/evaluation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "brume/config/counted.h"
#include "brume/core/boundary.h"
#include "brume/core/interruption.h"
#include "brume/core/names_classes.h"
#include "brume/numerics/frechet.h"
#include "brume/numerics/image_quality.h"

namespace brume {
namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

/// Returns the mean of what is known.
double mean(const std::vector<double>& values) {
  double sum = 0;
  int64_t count = 0;
  for (const double v : values)
    if (!std::isnan(v)) sum += v, ++count;
  return count > 0 ? sum / double(count) : unknown;
}

}  // namespace

void FeatureSet::add(const Tensor& images, const std::vector<Annotation>& annotations) {
  stop_if_asked();
  const Features::Output y = calling(*extractor_, "extract()", [&] { return extractor_->extract(images); });
  expect_shape(extractor_, "extract()", y.features, {images.size(0), extractor_->width()});
  if (extractor_->classes() > 0) expect_shape(extractor_, "extract()", y.logits, {images.size(0), extractor_->classes()});
  features_.push_back(y.features.to(at::kDouble));
  std::vector<int64_t> rows, known;
  for (size_t i = 0; i < annotations.size(); ++i) {
    const int64_t label = annotations[i].label, classes = extractor_->classes();
    labels_.push_back(label);
    if (label < 0 || classes == 0) continue;
    if (label >= classes)
      throw ConfigError(
          fmt::format("class {} is out of range: {} has {}, 0 to {}", label, extractor_->name(), counted(classes, "class"), classes - 1));
    rows.push_back(int64_t(i)), known.push_back(label);
  }
  if (!known.empty()) scores_.add(y.logits.index_select(0, at::tensor(rows)), at::tensor(known));
}

void FeatureSet::gather(World& world) {
  if (world.size() == 1) return;
  const Tensor own = features_.empty() ? at::empty({0, extractor_->width()}, at::kDouble) : at::cat(features_);
  features_ = {world.all_gather_rows(own)};
  const Tensor labels = world.all_gather_rows(at::tensor(labels_, at::kLong)).contiguous();
  labels_.assign(labels.data_ptr<int64_t>(), labels.data_ptr<int64_t>() + labels.numel());
  const Tensor scores = at::tensor({scores_.images, scores_.right});
  world.all_reduce(scores);
  scores_.images = scores[0].item<int64_t>(), scores_.right = scores[1].item<int64_t>();
}

int64_t FeatureSet::classes() const {
  if (extractor_->classes() > 0 || labels_.empty()) return extractor_->classes();
  return std::max<int64_t>(0, *std::max_element(labels_.begin(), labels_.end()) + 1);
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
  f.spread_by_class = class_spread(features, set.labels(), set.classes());
  f.spread = mean(f.spread_by_class);
  return f;
}

ImageShape images_for(const Features& extractor, const ImageShape& images) {
  const ImageShape input = extractor.input();
  return input.height > 0 ? input : ImageShape{input.channels, images.height, images.width};
}

ClassList compared_classes(const Features& extractor, const Dataset& real, const std::string& name) {
  return extractor.classes() > 0 ? ClassList{class_names_of(extractor), extractor.name()} : ClassList{real.classes(), name};
}

FeatureSet data_features(const Features& extractor, const Dataset& data, const ImageShape& shape, const std::string& name, int64_t limit,
                         const std::function<bool(int64_t, int64_t)>& progress, World& world) {
  const int64_t classes = int64_t(data.classes().size());
  if (classes > 0 && extractor.classes() > 0 && classes != extractor.classes())
    throw ConfigError(fmt::format("{} has {}, and {} has {}", name, counted(classes, "class"), extractor.name(), extractor.classes()));
  const NumberRange part = world.part(count_of(data, limit));
  FeatureSet set(extractor);
  for_each_batch(data, shape, 256, part, [&](const Tensor& images, const std::vector<Annotation>& annotations) {
    set.add(images, annotations);
    if (progress && !progress(set.images(), part.count())) throw Interrupted();
    return true;
  });
  set.gather(world);
  return set;
}

SampleRequest samples_in_turn(const Pipeline& model, const SampleOptions& options, int64_t count, int64_t batch, uint64_t seed,
                              const std::function<bool(int64_t, const Step&)>& observer, const ModelSource& models) {
  const int64_t classes = int64_t(requestable_classes(model, options, models).size());
  SampleRequest request;
  request.seed = seed;
  request.batch = batch;
  request.models = &models;
  request.observer = observer;
  for (int64_t i = 0; i < count; ++i) request.images.push_back({classes > 0 ? i % classes : -1, ""});
  return request;
}

void keep_part(SampleRequest& request, const NumberRange& part) {
  request.first += part.begin;
  request.images = std::vector<Annotation>(request.images.begin() + part.begin, request.images.begin() + part.end);
}

FeatureSet sample_features(const Features& extractor, const Pipeline& model, const SampleOptions& options, int64_t count, int64_t batch,
                           uint64_t seed, const std::function<bool(int64_t, const Step&)>& observer, const ModelSource& models,
                           const ClassList& known, World& world) {
  const ImageShape image = model.options().image, wanted = images_for(extractor, image);
  const std::vector<std::string> names = requestable_classes(model, options, models);
  const std::vector<int64_t> numbers = class_numbers({names, "the model"}, known);
  const int64_t classes = int64_t(names.size());
  if (image != wanted)
    throw ConfigError(fmt::format("the model makes {} images, and {} takes {}", image.text(), extractor.name(), wanted.text()));
  if (classes > 0 && extractor.classes() > 0 && classes != extractor.classes())
    throw ConfigError(fmt::format("the model has {}, and {} has {}", counted(classes, "class"), extractor.name(), extractor.classes()));
  FeatureSet set(extractor);
  SampleRequest request = samples_in_turn(model, options, count, batch, seed, observer, models);
  keep_part(request, world.part(count));
  request.made = [&](int64_t first, const Tensor& images) {
    const auto begin = request.images.begin() + first;
    std::vector<Annotation> made(begin, begin + images.size(0));
    for (Annotation& a : made)
      if (a.label >= 0 && !numbers.empty()) a.label = numbers[size_t(a.label)];
    set.add(as_8_bits(images), made);
  };
  if (!request.images.empty()) sample_batches(model, request, options);
  set.gather(world);
  return set;
}

}  // namespace brume
