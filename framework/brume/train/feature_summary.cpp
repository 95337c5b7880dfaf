#include "brume/train/feature_summary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/core/boundary.h"
#include "brume/core/interruption.h"
#include "brume/numerics/image_quality.h"
#include "brume/train/evaluation.h"

namespace brume {

SetMetric::Needs needs_of(const std::vector<std::shared_ptr<const SetMetric>>& metrics) {
  SetMetric::Needs all{.real = false};
  for (const auto& metric : metrics) {
    const SetMetric::Needs n = metric->needs();
    all.statistics |= n.statistics, all.spatial |= n.spatial, all.rows |= n.rows, all.logits |= n.logits, all.real |= n.real;
  }
  return all;
}

void check_needs(const SetMetric::Needs& needs, const Features& extractor) {
  if (needs.spatial && extractor.spatial_width() == 0)
    throw ConfigError(fmt::format("the metrics need spatial features, and {} has none", extractor.name()));
  if (needs.logits && extractor.logit_width() == 0)
    throw ConfigError(fmt::format("the metrics need class logits, and {} has none", extractor.name()));
}

FeatureSummarizer::FeatureSummarizer(const Features& extractor, const SetMetric::Needs& needs, std::string name)
    : extractor_(extractor), needs_(needs), name_(std::move(name)) {}

void FeatureSummarizer::note(const Tensor& images) {
  const int64_t h = images.size(2), w = images.size(3);
  const bool first = images_ == 0;
  heights_[0] = first ? h : std::min(heights_[0], h), heights_[1] = std::max(heights_[1], h);
  widths_[0] = first ? w : std::min(widths_[0], w), widths_[1] = std::max(widths_[1], w);
  for (int64_t c = 1; grey_ && c < images.size(1); ++c) grey_ = images.select(1, c).equal(images.select(1, 0));
  const Tensor values = ((images.clamp(-1, 1) + 1) * 127.5).round().to(at::kCPU, at::kByte).contiguous();
  const auto* bytes = values.data_ptr<uint8_t>();
  for (int64_t i = 0; i < values.numel(); ++i) pixels_.add(bytes[i]);
}

void FeatureSummarizer::add(const Tensor& images) {
  stop_if_asked();
  note(images);
  const Tensor input = images.size(1) == 1 && extractor_.input().channels == 3 ? images.expand({-1, 3, -1, -1}).contiguous() : images;
  const Features::Output y = calling(extractor_, "extract()", [&] { return extractor_.extract(input); });
  expect_shape(&extractor_, "extract()", y.features, {images.size(0), extractor_.width()});
  if (needs_.statistics) statistics_.add(y.features);
  if (needs_.rows) rows_.push_back(y.features.to(at::kFloat));
  if (needs_.spatial) {
    expect_shape(&extractor_, "extract()", y.spatial, {images.size(0), extractor_.spatial_width()});
    spatial_.add(y.spatial);
  }
  if (needs_.logits) {
    expect_shape(&extractor_, "extract()", y.logits, {images.size(0), extractor_.logit_width()});
    logits_.push_back(y.logits.to(at::kFloat));
  }
  images_ += images.size(0);
}

FeatureSummary FeatureSummarizer::summary() const {
  if (images_ < 2) throw ConfigError(fmt::format("{}: has {} images, and metrics of sets need 2 at least", name_, images_));
  FeatureSummary s;
  s.name = name_;
  s.images = images_;
  if (needs_.statistics) s.statistics = statistics_.statistics();
  if (needs_.spatial) s.spatial = spatial_.statistics();
  if (needs_.rows) s.rows = at::cat(rows_);
  if (needs_.logits) s.logits = at::cat(logits_);
  return s;
}

std::vector<std::string> FeatureSummarizer::notes() const {
  std::vector<std::string> all;
  if (heights_[0] != heights_[1] || widths_[0] != widths_[1])
    all.push_back(fmt::format("sizes from {}x{} to {}x{}", heights_[0], widths_[0], heights_[1], widths_[1]));
  if (grey_ && images_ > 0 && extractor_.input().channels == 3) all.push_back("grey, repeated in 3 channels");
  return all;
}

std::string FeatureSummarizer::hash() const { return fmt::format("{:016x}", pixels_.value); }

void add_samples(FeatureSummarizer& summarizer, const Pipeline& model, const SampleOptions& options, int64_t count, int64_t batch,
                 uint64_t seed, const std::function<bool(int64_t first, const Step&)>& observer, const ModelSource& models) {
  SampleRequest request = samples_in_turn(model, options, count, batch, seed, observer, models);
  request.made = [&](int64_t, const Tensor& images) { summarizer.add(as_8_bits(images)); };
  sample_batches(model, request, options);
}

}  // namespace brume
