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
    all.captions |= n.captions;
    if (n.frechet_name.empty()) continue;
    if (!all.frechet_name.empty() && all.frechet_name != n.frechet_name)
      throw ConfigError(fmt::format("the metrics {} and {} are of the features of two extractors: evaluate them one after the other",
                                    all.frechet_name, n.frechet_name));
    all.frechet_name = n.frechet_name;
  }
  return all;
}

void check_needs(const SetMetric::Needs& needs, const Features& extractor) {
  if (needs.spatial && extractor.spatial_width() == 0)
    throw ConfigError(fmt::format("the metrics need spatial features, and {} has none", extractor.name()));
  if (needs.logits && extractor.logit_width() == 0)
    throw ConfigError(fmt::format("the metrics need class logits, and {} has none", extractor.name()));
  if (needs.captions && !extractor.reads_captions())
    throw ConfigError(fmt::format("the metrics compare images with captions, and {} embeds no captions (clip_image with a tokenizer does)",
                                  extractor.name()));
  if (!needs.frechet_name.empty() && extractor.frechet_name() != needs.frechet_name)
    throw ConfigError(fmt::format("{} is not defined for the features of {}; fid is the Fréchet distance in any features",
                                  needs.frechet_name, extractor.name()));
}

FeatureSummarizer::FeatureSummarizer(const Features& extractor, const SetMetric::Needs& needs, std::string name)
    : extractor_(extractor), needs_(needs), name_(std::move(name)) {}

void FeatureSummarizer::note(const Tensor& images) {
  const int64_t h = images.size(2), w = images.size(3);
  const bool first = images_ == 0;
  heights_[0] = first ? h : std::min(heights_[0], h), heights_[1] = std::max(heights_[1], h);
  widths_[0] = first ? w : std::min(widths_[0], w), widths_[1] = std::max(widths_[1], w);
  for (int64_t c = 1; grey_ && c < images.size(1); ++c) grey_ = images.select(1, c).equal(images.select(1, 0));
  const Tensor values = byte_values(images).cpu().contiguous();
  const auto* bytes = values.data_ptr<uint8_t>();
  for (int64_t i = 0; i < values.numel(); ++i) pixels_.add(bytes[i]);
}

void FeatureSummarizer::expect_finite(const Tensor& rows, const std::string& what) const {
  const Tensor damaged = rows.isfinite().flatten(1).all(1).logical_not();
  if (damaged.any().item<bool>())
    throw ConfigError(fmt::format("{}: image {} has {} that are not finite", name_, images_ + damaged.nonzero()[0].item<int64_t>(), what));
}

void FeatureSummarizer::add_captions(const std::vector<std::string>& captions, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    if (i >= int64_t(captions.size()) || captions[size_t(i)].empty())
      throw ConfigError(fmt::format("{}: image {} has no caption, and the metrics compare images with captions", name_, images_ + i));
  const Tensor y = calling(extractor_, "embed()", [&] { return extractor_.embed(captions); });
  expect_shape(&extractor_, "embed()", y, {count, extractor_.width()});
  expect_finite(y, "features of its caption");
  captions_.push_back(y.to(at::kFloat));
}

void FeatureSummarizer::add(const Tensor& images, const std::vector<std::string>& captions) {
  stop_if_asked();
  expect_finite(images, "values");
  note(images);
  const Tensor input = images.size(1) == 1 && extractor_.input().channels == 3 ? images.expand({-1, 3, -1, -1}).contiguous() : images;
  const Features::Output y = calling(extractor_, "extract()", [&] { return extractor_.extract(input); });
  expect_shape(&extractor_, "extract()", y.features, {images.size(0), extractor_.width()});
  expect_finite(y.features, "features");
  if (needs_.statistics) statistics_.add(y.features);
  if (needs_.rows) rows_.push_back(y.features.to(at::kFloat));
  if (needs_.spatial) {
    expect_shape(&extractor_, "extract()", y.spatial, {images.size(0), extractor_.spatial_width()});
    expect_finite(y.spatial, "spatial features");
    spatial_.add(y.spatial);
  }
  if (needs_.logits) {
    expect_shape(&extractor_, "extract()", y.logits, {images.size(0), extractor_.logit_width()});
    expect_finite(y.logits, "logits");
    logits_.push_back(y.logits.to(at::kFloat));
  }
  if (needs_.captions) add_captions(captions, images.size(0));
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
  if (needs_.captions) s.captions = at::cat(captions_);
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
                 uint64_t seed, const std::function<bool(int64_t first, const Step&)>& observer, const ModelSource& models,
                 const std::vector<std::string>& captions) {
  SampleRequest request = samples_in_turn(model, options, count, batch, seed, observer, models);
  for (size_t i = 0; !captions.empty() && i < request.images.size(); ++i) request.images[i].caption = captions[i % captions.size()];
  request.made = [&](int64_t first, const Tensor& images) {
    std::vector<std::string> of_batch;
    for (int64_t i = 0; i < images.size(0); ++i) of_batch.push_back(request.images[size_t(first + i)].caption);
    summarizer.add(as_8_bits(images), of_batch);
  };
  sample_batches(model, request, options);
}

}  // namespace brume
