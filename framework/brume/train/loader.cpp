#include "brume/train/loader.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/foreign.h"
#include "brume/core/image_files.h"
#include "brume/core/loss_weights.h"
#include "brume/core/noise.h"
#include "brume/core/warnings.h"

namespace brume {

namespace {

/// Throws as blame() does if the data set has no such class.
void check_label(const Dataset& data, int64_t label) {
  const int64_t classes = int64_t(data.classes().size());
  if (label < 0 || classes == 0 || label < classes) return;
  if (plugin_name(&data).empty()) return;
  blame(&data, fmt::format("read() returned class {}, and classes() has {}", label, classes));
}

/// Returns another image of the set for one that cannot be read, of the same bucket if the set has buckets.
int64_t stand_in(const Dataset& data, const Buckets* buckets, const Pick& pick, uint64_t attempt) {
  constexpr uint64_t most = 1000, stand_ins = 30;
  for (uint64_t i = 0;; ++i) {
    const int64_t index = int64_t(mix_seed(pick.draw, stand_ins, attempt + i * 1000) % uint64_t(data.size()));
    if (!buckets || buckets->bucket_of(index) == buckets->bucket_of(pick.index) || i == most) return index;
  }
}

/// Where the pixels of a row go.
struct Row {
  std::span<float> pixels, weights;  ///< weights: if the set has some
  const ImageShape& shape;
};

/// Reads the image of a row. If it cannot be read and the set leaves such images out: another of the set, or nothing if `replace` is false.
Annotation read_row(const Dataset& data, const Buckets* buckets, Pick pick, int64_t row, bool replace, const Row& to,
                    std::vector<Unread>& unread) {
  const auto* files = dynamic_cast<const ImageFiles*>(&data);
  constexpr uint64_t most = 100;
  for (uint64_t attempt = 0;; ++attempt) {
    try {
      const Annotation read = calling(data, "read()", [&] {
        return buckets ? buckets->read_bucket(pick.index, pick.draw, to.pixels) : data.read(pick.index, pick.draw, to.pixels);
      });
      if (const LossWeights* weights = loss_weights_of(data))
        calling(data, "read_weights()", [&] { weights->read_weights(pick.index, pick.draw, to.shape, to.weights); });
      check_label(data, read.label);
      return read;
    } catch (const ConfigError& e) {
      if (!files || !files->skips_errors()) throw;
      if (attempt == most) throw ConfigError(fmt::format("{} in a row cannot be read; the last: {}", counted(most, "image"), e.what()));
      unread.push_back({row, pick.index, e.what()});
      if (!replace) return {};
    }
    pick.index = stand_in(data, buckets, pick, attempt);
  }
}

Batch read_rows(const Dataset& data, const Buckets* buckets, const ImageShape& shape, int64_t count, bool replace,
                const std::function<Pick(int64_t)>& pick) {
  Batch batch{at::empty({count, shape.channels, shape.height, shape.width}, at::kFloat), {}, data.encoded().has_value()};
  if (loss_weights_of(data)) batch.weights = at::empty({count, 1, shape.height, shape.width}, at::kFloat);
  const auto row_of = [](const Tensor& t, int64_t i) {
    if (!t.defined()) return std::span<float>();
    const int64_t numbers = t.numel() / t.size(0);
    return std::span<float>(t.data_ptr<float>() + i * numbers, size_t(numbers));
  };
  for (int64_t i = 0; i < count; ++i)
    batch.annotations.push_back(
        read_row(data, buckets, pick(i), i, replace, {row_of(batch.images, i), row_of(batch.weights, i), shape}, batch.unread));
  return batch;
}

}  // namespace

Batch read_batch(const Dataset& data, const ImageShape& shape, int64_t count, const std::function<Pick(int64_t)>& pick) {
  return read_rows(data, nullptr, shape, count, true, pick);
}

Batch read_in_turn(const Dataset& data, const ImageShape& shape, int64_t first, int64_t count) {
  Batch batch = read_rows(data, nullptr, shape, count, false, [&](int64_t i) { return Pick{first + i}; });
  if (batch.unread.empty()) return batch;
  std::vector<Tensor> rows;
  std::vector<Annotation> annotations;
  auto lost = batch.unread.begin();  // in the order of rows
  for (int64_t i = 0; i < count; ++i) {
    if (lost != batch.unread.end() && lost->row == i) {
      warn(fmt::format("left out: {}", (lost++)->error));
      continue;
    }
    rows.push_back(batch.images.narrow(0, i, 1));
    annotations.push_back(std::move(batch.annotations[size_t(i)]));
  }
  batch.images = rows.empty() ? batch.images.narrow(0, 0, 0) : at::cat(rows);
  batch.annotations = std::move(annotations);
  batch.unread.clear();
  return batch;
}

Loader::Loader(std::shared_ptr<const Dataset> data, const ImageShape& shape, int64_t batch, uint64_t seed, int64_t first_step,
               int64_t workers, std::optional<BatchRows> rows)
    : data_(std::move(data)),
      shape_(data_->encoded() ? data_->encoded()->shape : shape),
      batch_(batch),
      rows_(rows.value_or(BatchRows{0, batch})),
      seed_(seed),
      step_(first_step),
      workers_(size_t(workers)),
      buckets_(buckets_of(*data_)) {
  if (buckets_) images_of_.resize(buckets_->buckets().size());
  for (int64_t i = 0; buckets_ && i < data_->size(); ++i) images_of_.at(buckets_->bucket_of(i)).push_back(i);
  read_ahead();
}

Loader::~Loader() {
  for (const std::future<Batch>& batch : ahead_)
    if (batch.valid()) batch.wait();
}

/// The order is drawn here, by the thread that asks, and the pixels by the others: nothing is shared that changes.
void Loader::read_ahead() {
  for (; ahead_.size() < workers_; ++step_)
    ahead_.push_back(std::async(std::launch::async, [this, step = step_, which = indices(step_)] { return read(step, which); }));
}

Batch Loader::next() {
  Batch batch = take();
  for (const Annotation& image : batch.annotations) {
    const SizeIds& s = image.sizes;
    if (enlarged_ || s.original_height <= 0 || s.original_width <= 0) continue;
    enlarged_ = 2 * s.original_height < s.target_height || 2 * s.original_width < s.target_width;
    if (enlarged_)
      warn(fmt::format("an image of {}x{} pixels is enlarged to {}x{}, and the model learns how that looks; further ones are not named",
                       s.original_width, s.original_height, s.target_width, s.target_height));
  }
  return batch;
}

Batch Loader::take() {
  if (workers_ == 0) {
    const int64_t step = step_++;
    return read(step, indices(step));
  }
  std::future<Batch> due = std::move(ahead_.front());
  ahead_.pop_front();
  due.wait();
  read_ahead();
  return due.get();
}

std::vector<int64_t> Loader::indices(int64_t step) {
  if (buckets_) return of_bucket(step);
  std::vector<int64_t> all;
  for (int64_t i = 0; i < batch_; ++i) all.push_back(index(step * batch_ + i));
  return all;
}

int64_t Loader::index(int64_t draw) {
  const int64_t size = data_->size();
  if (size == 0) return draw;
  if (draw / size != epoch_) {
    epoch_ = draw / size;
    order_ = permutation(size_t(size), 10 + uint64_t(epoch_));
  }
  return order_[size_t(draw % size)];
}

std::vector<int64_t> Loader::permutation(size_t count, uint64_t stream) const {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = count; i > 1; --i) std::swap(order[i - 1], order[mix_seed(seed_, stream, i) % i]);
  return order;
}

std::vector<int64_t> Loader::of_bucket(int64_t step) {
  int64_t per_epoch = 0;
  for (const std::vector<int64_t>& images : images_of_) per_epoch += (int64_t(images.size()) + batch_ - 1) / batch_;
  if (step / per_epoch != epoch_) plan(step / per_epoch);
  return batches_.at(size_t(step % per_epoch));
}

void Loader::plan(int64_t epoch) {
  constexpr uint64_t stream_of_buckets = uint64_t(1) << 32;
  epoch_ = epoch;
  std::vector<std::vector<int64_t>> all;
  uint64_t stream = mix_seed(stream_of_buckets, uint64_t(epoch));
  for (const std::vector<int64_t>& images : images_of_) {
    const std::vector<int64_t> order = permutation(images.size(), stream++);
    for (size_t begin = 0; begin < order.size(); begin += size_t(batch_)) {
      std::vector<int64_t>& batch = all.emplace_back();
      for (size_t i = 0; i < size_t(batch_); ++i) batch.push_back(images[size_t(order[(begin + i) % order.size()])]);
    }
  }
  batches_.clear();
  for (const int64_t i : permutation(all.size(), stream)) batches_.push_back(all[size_t(i)]);
}

Batch Loader::read(int64_t step, const std::vector<int64_t>& indices) const {
  const ImageShape shape = buckets_ ? buckets_->buckets()[buckets_->bucket_of(indices.front())] : shape_;
  return read_rows(*data_, buckets_, shape, rows_.count, true, [&](int64_t i) {
    const int64_t row = rows_.first + i;
    return Pick{indices[size_t(row)], mix_seed(seed_, 5, uint64_t(step * batch_ + row))};
  });
}

}  // namespace brume
