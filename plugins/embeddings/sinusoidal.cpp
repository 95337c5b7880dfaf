// Sinusoidal features (Vaswani et al. 2017, sec. 3.5; Ho et al. 2020), the timestep embedding of DDPM, ADM and latent diffusion.
//
//   features(c) = [cos(c scale f_i), sin(c scale f_i)],   f_i = max_period^(-i / (half - shift)),   i = 0 ... half-1
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/noise_embedding.h"
#include "brume/numerics/waves.h"

namespace brume::plugins {
namespace {

class Sinusoidal final : public NoiseEmbedding {
 public:
  struct Options {
    NoiseQuantity input = NoiseQuantity::timestep;
    double scale = 1, max_period = 10000;
    int64_t shift = 0;
    bool sin_first = false;
    void declare(Fields& f) {
      declare_quantity(f, input);
      f.field("scale", scale, "multiplies the input (1000 suits a variance or a continuous time in [0, 1])", more_than(0));
      f.field("max_period", max_period, "the longest wavelength is 2 pi times this", more_than(1));
      f.field("shift", shift, "1: the last frequency is 1 / max_period itself (DDPM's authors, Transformers)", within(0, 1));
      f.field("sin_first", sin_first, "[sin, cos] instead of [cos, sin]");
    }
  };
  explicit Sinusoidal(const Options& o) : o_(o) {}
  NoiseQuantity quantity() const override { return o_.input; }
  bool random() const override { return false; }

  Tensor frequencies(int64_t width, at::Generator&) const override {
    const int64_t half = width / 2;
    return (at::arange(half, at::kFloat) * (-std::log(o_.max_period) / double(std::max<int64_t>(1, half - o_.shift)))).exp();
  }
  Tensor features(const Tensor& c_noise, const Tensor& frequencies) const override {
    const auto [cosines, sines] = cos_sin((c_noise * o_.scale).unsqueeze(1) * frequencies.unsqueeze(0));
    return o_.sin_first ? at::cat({sines, cosines}, 1) : at::cat({cosines, sines}, 1);
  }

 private:
  Options o_;
};

}  // namespace

void register_embedding_sinusoidal(Registry& r) {
  r.add<NoiseEmbedding, Sinusoidal>("sinusoidal", "cosines and sines of geometric frequencies (DDPM, ADM)");
}

}  // namespace brume::plugins
