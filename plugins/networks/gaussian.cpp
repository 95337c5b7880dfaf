// The exact denoiser of Gaussian data N(mean, std^2), as a network without weights: what a sampler does with it is known in closed
// form, so it is the first thing to try a new sampler, spacing or schedule on.
//
//   x = x0 + sigma noise,   E[x0 | x] = (std^2 x + sigma^2 mean) / (std^2 + sigma^2)
//
// It predicts the clean image (parameterization: x0) of a variance-preserving schedule, whose frame is x / sqrt(1 + sigma^2).
#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <fmt/format.h>

#include "config/registry.h"
#include "core/network.h"

namespace brume::plugins {
namespace {

class Gaussian final : public Network {
 public:
  struct Options {
    double mean = 0, std = 0.5;
    void declare(Fields& f) {
      f.field("mean", mean, "of every pixel");
      f.field("std", std, "of every pixel", more_than(0));
    }
  };
  static void check(const Options&, const Context& c) {
    if (c.out_channels != c.input.channels)
      throw ConfigError(fmt::format("gives as many channels as it takes, {}, and {} are wanted", c.input.channels, c.out_channels));
  }
  Gaussian(const Options& o, const Context&) : o_(o) {}

  NoiseQuantity quantity() const override { return NoiseQuantity::log_snr; }
  std::vector<Weight> weights() const override { return {}; }

  Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition&, at::Generator*) const override {
    std::vector<int64_t> each(size_t(input.dim()), 1);
    each[0] = input.size(0);
    const Tensor variance = c_noise.to(at::kDouble).neg().exp().view(each);  // sigma^2
    const Tensor x = input.to(at::kDouble) * (variance + 1).sqrt();
    const double data = o_.std * o_.std;
    return ((x * data + variance * o_.mean) / (variance + data)).to(input.scalar_type());
  }

 private:
  Options o_;
};

}  // namespace

void register_network_gaussian(Registry& r) { r.add<Network, Gaussian>("gaussian", "exact denoiser of Gaussian data; no weights"); }

}  // namespace brume::plugins
