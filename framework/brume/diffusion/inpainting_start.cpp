#include "brume/diffusion/inpainting_start.h"

#include <ATen/TensorOperators.h>

namespace brume {
namespace {

class FromNoise final : public Denoiser {
 public:
  FromNoise(std::shared_ptr<const Denoiser> inner, double sigma, double std) : inner_(std::move(inner)), sigma_(sigma), std_(std) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    if (sigma != sigma_) return inner_->denoise(x, sigma, condition);
    const Tensor mask = condition.mask.to(x.scalar_type()), noise = (x - condition.known.to(x.scalar_type())) / sigma;
    return inner_->denoise(x * mask + noise * (1 - mask) * std_, sigma, condition);
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
  double sigma_, std_;
};

}  // namespace

std::shared_ptr<const Denoiser> started_from_noise(std::shared_ptr<const Denoiser> inner, double sigma, double std) {
  return std::make_shared<FromNoise>(std::move(inner), sigma, std);
}

}  // namespace brume
