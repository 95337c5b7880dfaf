#include "brume/train/loader.h"

#include <ATen/ops/empty.h>

#include <numeric>

#include "brume/core/noise.h"

namespace brume {

Batch read_batch(const Dataset& data, const ImageShape& shape, int64_t count, const std::function<Pick(int64_t)>& pick) {
  Batch batch{at::empty({count, shape.channels, shape.height, shape.width}, at::kFloat), {}, data.encoded().has_value()};
  float* pixels = batch.images.data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    const Pick p = pick(i);
    batch.annotations.push_back(data.read(p.index, p.draw, {pixels + i * shape.numel(), size_t(shape.numel())}));
  }
  return batch;
}

Loader::Loader(std::shared_ptr<const Dataset> data, const ImageShape& shape, int64_t batch, uint64_t seed, int64_t first_step,
               int64_t workers)
    : data_(std::move(data)),
      shape_(data_->encoded() ? data_->encoded()->shape : shape),
      batch_(batch),
      seed_(seed),
      step_(first_step),
      workers_(size_t(workers)) {
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
  std::vector<int64_t> all;
  for (int64_t i = 0; i < batch_; ++i) all.push_back(index(step * batch_ + i));
  return all;
}

int64_t Loader::index(int64_t draw) {
  const int64_t size = data_->size();
  if (size == 0) return draw;
  if (draw / size != epoch_) {
    epoch_ = draw / size;
    order_.resize(size_t(size));
    std::iota(order_.begin(), order_.end(), 0);
    for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[mix_seed(seed_, 10 + uint64_t(epoch_), i) % i]);
  }
  return order_[size_t(draw % size)];
}

Batch Loader::read(int64_t step, const std::vector<int64_t>& indices) const {
  return read_batch(*data_, shape_, batch_, [&](int64_t i) {
    return Pick{indices[size_t(i)], mix_seed(seed_, 5, uint64_t(step * batch_ + i))};
  });
}

}  // namespace brume
