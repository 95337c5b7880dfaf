#include "brume/train/feature_summary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "brume/config/counted.h"
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

FeatureSummarizer::FeatureSummarizer(const Features& extractor, const SetMetric::Needs& needs, std::string name, World& world)
    : extractor_(extractor), needs_(needs), name_(std::move(name)), world_(world) {}

NumberRange FeatureSummarizer::begin(int64_t count) {
  const NumberRange part = world_.part(count);
  first_ = part.begin;
  return part;
}

Tensor FeatureSummarizer::facts_of(const Tensor& images, const std::vector<std::array<int64_t, 2>>& sizes) const {
  const int64_t count = images.size(0);
  const Tensor facts = at::empty({count, 4}, at::kLong), values = byte_values(images).cpu().contiguous();
  const auto* bytes = values.data_ptr<uint8_t>();
  for (int64_t i = 0; i < count; ++i, bytes += values.numel() / count) {
    Fnv1a hash;
    for (int64_t k = 0; k < values.numel() / count; ++k) hash.add(bytes[k]);
    bool grey = true;
    for (int64_t c = 1; grey && c < images.size(1); ++c) grey = images[i][c].equal(images[i][0]);
    int64_t* row = facts.data_ptr<int64_t>() + 4 * i;
    row[0] = std::bit_cast<int64_t>(hash.value), row[3] = grey;
    row[1] = sizes.empty() ? images.size(2) : sizes[size_t(i)][0], row[2] = sizes.empty() ? images.size(3) : sizes[size_t(i)][1];
  }
  return facts;
}

void FeatureSummarizer::expect_finite(const Tensor& rows, const std::string& what) const {
  const Tensor damaged = rows.isfinite().flatten(1).all(1).logical_not();
  if (damaged.any().item<bool>())
    throw ConfigError(
        fmt::format("{}: image {} has {} that are not finite", name_, first_ + images_ + damaged.nonzero()[0].item<int64_t>(), what));
}

Tensor FeatureSummarizer::embedded(const std::vector<std::string>& captions, int64_t count) const {
  for (int64_t i = 0; i < count; ++i)
    if (i >= int64_t(captions.size()) || captions[size_t(i)].empty())
      throw ConfigError(
          fmt::format("{}: image {} has no caption, and the metrics compare images with captions", name_, first_ + images_ + i));
  const Tensor y = calling(extractor_, "embed()", [&] { return extractor_.embed(captions); });
  expect_shape(&extractor_, "embed()", y, {count, extractor_.width()});
  expect_finite(y, "features of its caption");
  return y.to(at::kFloat);
}

void FeatureSummarizer::add(const Tensor& images, const std::vector<std::string>& captions,
                            const std::vector<std::array<int64_t, 2>>& sizes) {
  stop_if_asked();
  expect_finite(images, "values");
  const int64_t count = images.size(0);
  const Tensor input = images.size(1) == 1 && extractor_.input().channels == 3 ? images.expand({-1, 3, -1, -1}).contiguous() : images;
  const Features::Output y = calling(extractor_, "extract()", [&] { return extractor_.extract(input); });
  Rows rows{facts_of(images, sizes), {}, {}, {}, {}};
  const auto checked = [&](const Tensor& t, int64_t width, const char* what) {
    expect_shape(&extractor_, "extract()", t, {count, width});
    expect_finite(t, what);
    return t.to(at::kFloat);
  };
  rows.features = checked(y.features, extractor_.width(), "features");
  if (!needs_.statistics && !needs_.rows) rows.features = Tensor();
  if (needs_.spatial) rows.spatial = checked(y.spatial, extractor_.spatial_width(), "spatial features");
  if (needs_.logits) rows.logits = checked(y.logits, extractor_.logit_width(), "logits");
  if (needs_.captions) rows.captions = embedded(captions, count);
  if (world_.leads()) return take(rows);
  kept_.push_back(rows);
  images_ += count;
}

void FeatureSummarizer::take(const Rows& rows) {
  const auto* facts = rows.facts.data_ptr<int64_t>();
  for (int64_t i = 0; i < rows.facts.size(0); ++i, ++images_, facts += 4) {
    pixels_.add(std::bit_cast<uint64_t>(facts[0]));
    const int64_t h = facts[1], w = facts[2];
    heights_[0] = images_ == 0 ? h : std::min(heights_[0], h), heights_[1] = std::max(heights_[1], h);
    widths_[0] = images_ == 0 ? w : std::min(widths_[0], w), widths_[1] = std::max(widths_[1], w);
    grey_ = grey_ && facts[3] != 0;
  }
  if (needs_.statistics) statistics_.add(rows.features);
  if (needs_.rows) rows_.push_back(rows.features);
  if (needs_.spatial) spatial_.add(rows.spatial);
  if (needs_.logits) logits_.push_back(rows.logits);
  if (needs_.captions) captions_.push_back(rows.captions);
}

/// Returns the tensors that are needed, and their widths.
std::vector<std::pair<Tensor*, int64_t>> FeatureSummarizer::Rows::parts(const FeatureSummarizer& of) {
  std::vector<std::pair<Tensor*, int64_t>> all{{&facts, 4}};
  if (of.needs_.statistics || of.needs_.rows) all.emplace_back(&features, of.extractor_.width());
  if (of.needs_.spatial) all.emplace_back(&spatial, of.extractor_.spatial_width());
  if (of.needs_.logits) all.emplace_back(&logits, of.extractor_.logit_width());
  if (of.needs_.captions) all.emplace_back(&captions, of.extractor_.width());
  return all;
}

void FeatureSummarizer::gather() {
  if (world_.size() == 1) return;
  const Tensor batches = at::full({1}, int64_t(kept_.size()), at::kLong), counts = world_.all_gather(batches).flatten();
  for (int64_t rank = 1; rank < world_.size(); ++rank)
    for (int64_t k = 0; k < counts[rank].item<int64_t>(); ++k) {
      const bool mine = rank == world_.rank();
      Rows rows = mine ? std::move(kept_[size_t(k)]) : Rows{};
      const Tensor size = at::full({1}, mine ? rows.facts.size(0) : 0, at::kLong);
      world_.broadcast(size, rank);
      for (const auto& [part, width] : rows.parts(*this)) {
        const auto type = part == &rows.facts ? at::kLong : at::kFloat;
        *part = mine ? part->contiguous() : at::empty({size.item<int64_t>(), width}, type);
        world_.broadcast(*part, rank);
      }
      if (world_.leads()) take(rows);
    }
  kept_.clear();
}

FeatureSummary FeatureSummarizer::summary() const {
  if (images_ < 2) throw ConfigError(fmt::format("{}: has {}, and metrics of sets need 2 at least", name_, counted(images_, "image")));
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
  const ImageShape input = extractor_.input();
  const bool differ = heights_[0] != heights_[1] || widths_[0] != widths_[1];
  const bool resized = input.height > 0 && images_ > 0 && (differ || heights_[0] != input.height || widths_[0] != input.width);
  if (differ) all.push_back(fmt::format("sizes from {}x{} to {}x{}", heights_[0], widths_[0], heights_[1], widths_[1]));
  if (resized && !differ) all.push_back(fmt::format("{}x{}", heights_[0], widths_[0]));
  if (resized) all.back() += fmt::format(", resized to {}x{}", input.height, input.width);
  if (grey_ && images_ > 0 && extractor_.input().channels == 3) all.push_back("grey, repeated in 3 channels");
  return all;
}

std::string FeatureSummarizer::hash() const { return fmt::format("{:016x}", pixels_.value); }

void add_samples(FeatureSummarizer& summarizer, const Pipeline& model, const SampleOptions& options, int64_t count, int64_t batch,
                 uint64_t seed, const std::function<bool(int64_t first, const Step&)>& observer, const ModelSource& models,
                 const std::vector<std::string>& captions) {
  SampleRequest request = samples_in_turn(model, options, count, batch, seed, observer, models);
  for (size_t i = 0; !captions.empty() && i < request.images.size(); ++i) request.images[i].caption = captions[i % captions.size()];
  keep_part(request, summarizer.begin(count));
  request.made = [&](int64_t first, const Tensor& images) {
    std::vector<std::string> of_batch;
    for (int64_t i = 0; i < images.size(0); ++i) of_batch.push_back(request.images[size_t(first + i)].caption);
    summarizer.add(as_8_bits(images), of_batch);
  };
  if (!request.images.empty()) sample_batches(model, request, options);
  summarizer.gather();
}

}  // namespace brume
