// Random Fourier features (Tancik et al. 2020), as score SDE (Song et al. 2021) tells its networks the noise level.
//
//   features(c) = [cos(2 pi c f_i), sin(2 pi c f_i)],   f_i ~ N(0, scale^2), drawn once and kept with the weights
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/noise_embedding.h"
#include "brume/numerics/waves.h"

namespace brume::plugins {
namespace {

class Fourier final : public NoiseEmbedding {
 public:
  struct Options {
    NoiseQuantity input = NoiseQuantity::log_snr;
    double scale = 16;
    void declare(Fields& f) {
      declare_quantity(f, input);
      f.field("scale", scale, "standard deviation of the frequencies", more_than(0));
    }
  };
  explicit Fourier(const Options& o) : o_(o) {}
  NoiseQuantity quantity() const override { return o_.input; }
  bool random() const override { return true; }

  Tensor frequencies(int64_t width, at::Generator& random) const override {
    return at::randn({width / 2}, random, at::TensorOptions().dtype(at::kFloat)) * (2 * M_PI * o_.scale);
  }
  Tensor features(const Tensor& c_noise, const Tensor& frequencies) const override {
    const auto [cosines, sines] = cos_sin(c_noise.unsqueeze(1) * frequencies.unsqueeze(0));
    return at::cat({cosines, sines}, 1);
  }

 private:
  Options o_;
};

}  // namespace

void register_embedding_fourier(Registry& r) { r.add<NoiseEmbedding, Fourier>("fourier", "random Fourier features (score SDE)"); }

}  // namespace brume::plugins
