#include "brume/core/foreign_noise.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>

#include <array>
#include <cmath>
#include <numbers>
#include <vector>

namespace brume {
namespace {

using Words = std::array<uint32_t, 4>;

/// Returns the random words of a counter.
Words philox(Words counter, uint64_t key) {
  auto low = uint32_t(key), high = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t(0xD2511F53) * counter[0], b = uint64_t(0xCD9E8D57) * counter[2];
    counter = {uint32_t(b >> 32) ^ counter[1] ^ low, uint32_t(b), uint32_t(a >> 32) ^ counter[3] ^ high, uint32_t(a)};
    low += 0x9E3779B9, high += 0xBB67AE85;
  }
  return counter;
}

/// Returns the first of the two normal numbers of two words.
float normal(uint32_t first, uint32_t second) {
  constexpr double unit = 0x1p-32;
  const double u = first * unit + unit / 2, angle = 2 * std::numbers::pi * (second * unit + unit / 2);
  return float(std::sqrt(-2 * std::log(u)) * std::sin(angle));
}

class CudaBatch final : public Noise {
 public:
  explicit CudaBatch(uint64_t seed) : seed_(seed) {}
  Tensor draw(const Tensor& like, double, double) override { return cuda_normal(seed_, drawn_++, like.sizes()).to(like.options()); }

 private:
  uint64_t seed_;
  uint32_t drawn_ = 0;
};

class PerSeed final : public Noise {
 public:
  PerSeed(uint64_t seed, int64_t first, bool cuda) : seed_(seed + uint64_t(first)), cuda_(cuda) {}
  Tensor draw(const Tensor& like, double, double) override {
    std::vector<Tensor> rows;
    for (int64_t i = 0; i < like.size(0); ++i) rows.push_back(row(i, like.sizes().slice(1)));
    ++drawn_;
    return at::stack(rows).to(like.options());
  }

 private:
  Tensor row(int64_t i, at::IntArrayRef shape) {
    if (cuda_) return cuda_normal(seed_ + uint64_t(i), drawn_, shape);
    while (int64_t(streams_.size()) <= i) streams_.push_back(at::detail::createCPUGenerator(seed_ + streams_.size()));
    return at::randn(shape, streams_[size_t(i)], at::TensorOptions().dtype(at::kFloat));
  }

  uint64_t seed_;
  bool cuda_;
  uint32_t drawn_ = 0;
  std::vector<at::Generator> streams_;
};

}  // namespace

Tensor cuda_normal(uint64_t seed, uint32_t draw, at::IntArrayRef shape) {
  Tensor noise = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  float* out = noise.data_ptr<float>();
  for (int64_t i = 0; i < noise.numel(); ++i) {
    const Words w = philox({draw, 0, uint32_t(i), uint32_t(uint64_t(i) >> 32)}, seed);
    out[i] = normal(w[0], w[1]);
  }
  return noise;
}

std::unique_ptr<Noise> cuda_batch_noise(uint64_t seed) { return std::make_unique<CudaBatch>(seed); }
std::unique_ptr<Noise> seed_noise(uint64_t seed, int64_t first, bool cuda) { return std::make_unique<PerSeed>(seed, first, cuda); }

}  // namespace brume
