#include "brume/core/noise.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>

namespace brume {
namespace {

Tensor normal(at::IntArrayRef shape, const Tensor& like, at::Generator& generator) {
  return at::randn(shape, generator, at::TensorOptions().dtype(like.scalar_type()).device(at::kCPU));
}

class PerImage final : public Noise {
 public:
  PerImage(uint64_t seed, int64_t first) : seed_(seed), first_(first) {}
  Tensor draw(const Tensor& like, double, double) override {
    while (int64_t(streams_.size()) < like.size(0))
      streams_.push_back(at::detail::createCPUGenerator(mix_seed(seed_, 1, uint64_t(first_) + streams_.size())));
    Tensor noise = at::empty(like.sizes(), at::TensorOptions().dtype(like.scalar_type()).device(at::kCPU));
    for (int64_t i = 0; i < like.size(0); ++i) noise.select(0, i).copy_(normal(like.sizes().slice(1), like, streams_[size_t(i)]));
    return noise.to(like.device());
  }

 private:
  uint64_t seed_;
  int64_t first_;
  std::vector<at::Generator> streams_;
};

class Batch final : public Noise {
 public:
  explicit Batch(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}
  Tensor draw(const Tensor& like, double, double) override { return normal(like.sizes(), like, generator_).to(like.device()); }

 private:
  at::Generator generator_;
};

class Brownian final : public Noise {
 public:
  Brownian(uint64_t seed, int64_t first) : seed_(seed), first_(first), still_(mix_seed(seed, 3), first) {}
  Tensor draw(const Tensor& like, double from, double to) override {
    if (from == to || from <= 0 || to <= 0) return still_.draw(like, from, to);
    const double a = std::log(from), b = std::log(to);
    Tensor noise = at::empty(like.sizes(), at::TensorOptions().dtype(like.scalar_type()).device(at::kCPU));
    for (int64_t i = 0; i < like.size(0); ++i) noise.select(0, i).copy_((path(b, i, like) - path(a, i, like)) / std::sqrt(std::abs(b - a)));
    return noise.to(like.device());
  }

 private:
  static constexpr double lowest = -32, highest = 32;  // log sigma
  static constexpr int depth = 36;                     // bridges down to 1e-9

  Tensor normal_of(uint64_t node, int64_t image, const Tensor& like) const {
    at::Generator stream = at::detail::createCPUGenerator(mix_seed(mix_seed(seed_, 2, uint64_t(first_ + image)), node));
    return normal(like.sizes().slice(1), like, stream);
  }
  /// Returns the path of an image at `time`.
  Tensor path(double time, int64_t image, const Tensor& like) const {
    double lo = lowest, hi = highest;
    uint64_t node = 1;
    Tensor low = at::zeros(like.sizes().slice(1), at::TensorOptions().dtype(like.scalar_type()));
    Tensor high = normal_of(0, image, like) * std::sqrt(hi - lo);
    for (int level = 0; level < depth; ++level) {
      const double mid = (lo + hi) / 2;
      const Tensor middle = (low + high) * 0.5 + normal_of(node, image, like) * std::sqrt((hi - lo) / 4);
      const bool upper = time > mid;
      (upper ? low : high) = middle;
      (upper ? lo : hi) = mid;
      node = 2 * node + upper;
    }
    return low + (high - low) * ((time - lo) / (hi - lo));
  }
  uint64_t seed_;
  int64_t first_;
  PerImage still_;
};

}  // namespace

std::unique_ptr<Noise> brownian_noise(uint64_t seed, int64_t first) { return std::make_unique<Brownian>(seed, first); }
std::unique_ptr<Noise> per_image_noise(uint64_t seed, int64_t first) { return std::make_unique<PerImage>(seed, first); }
std::unique_ptr<Noise> batch_noise(uint64_t seed) { return std::make_unique<Batch>(seed); }

}  // namespace brume
