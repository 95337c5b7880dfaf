#include "core/noise.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>

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

}  // namespace

std::unique_ptr<Noise> per_image_noise(uint64_t seed, int64_t first) { return std::make_unique<PerImage>(seed, first); }
std::unique_ptr<Noise> batch_noise(uint64_t seed) { return std::make_unique<Batch>(seed); }

}  // namespace brume
