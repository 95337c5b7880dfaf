// Exact denoisers, as networks without weights: what a sampler or a guidance does with them is known in closed form, so they are the first
// thing to try a new sampler, spacing, schedule or guidance on.
//
//   gaussian:   every pixel is N(mean, std^2)
//   mixture:    an image is one of several grounds mean_k 1 + std noise, each as likely; for a class, it is of the ground of that number,
//               for the null class (the one after the last) or none, of any of them
//
// With x = x0 + sigma noise, of d pixels (Karras et al. 2022, app. B.3):
//
//   E[x0 | x] = sum_k w_k (std^2 x + sigma^2 mean_k) / (std^2 + sigma^2),   w = softmax_k(-|x - mean_k 1|^2 / (2 (std^2 + sigma^2)))
//
// and what they give is F of the model's own frame and parameterization: (E[x0 | x] - c_skip x) / c_out, of the input c_in x.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/network.h"
#include "brume/core/parameterization.h"

namespace brume::plugins {
namespace {

/// The grounds that an image may be of.
class Exact : public Network {
 public:
  Exact(std::vector<double> means, double std, const Context& c) : means_(std::move(means)), std_(std), c_(c) {}

  static void check(const Context& c) {
    if (c.out_channels != c.input.channels)
      throw ConfigError(fmt::format("gives as many channels as it takes, {}, and {} are wanted", c.input.channels, c.out_channels));
    if (!c.noise || !c.parameterization) throw std::logic_error("an exact denoiser received no schedule and no parameterization");
  }

  NoiseQuantity quantity() const override { return NoiseQuantity::log_snr; }
  std::vector<Weight> weights() const override { return {}; }

  Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition& condition, at::Generator*, const Taps&) const override {
    const Tensor log_snr = c_noise.to(at::kCPU, at::kDouble);
    std::vector<double> scale, skip, out, variance;
    for (int64_t i = 0; i < log_snr.size(0); ++i) {
      const double sigma = std::exp(-0.5 * log_snr.data_ptr<double>()[i]), c_out = c_.parameterization->c_out(sigma);
      scale.push_back(1 / c_.parameterization->c_in(sigma, *c_.noise));
      skip.push_back(c_.parameterization->c_skip(sigma));
      out.push_back(c_out == 0 ? 0 : 1 / c_out);  // the network's output counts for nothing
      variance.push_back(sigma * sigma);
    }
    const auto rows = [&](const std::vector<double>& values) {
      std::vector<int64_t> each(size_t(input.dim()), 1);
      each[0] = input.size(0);
      return at::tensor(values, at::kDouble).to(input.device()).view(each);
    };
    const Tensor x = input.to(at::kDouble) * rows(scale);
    return ((image(x, rows(variance), condition) - x * rows(skip)) * rows(out)).to(input.scalar_type());
  }

 private:
  /// Returns E[x0 | x]; variance: sigma^2, [B, 1, 1, 1].
  Tensor image(const Tensor& x, const Tensor& variance, const Condition& condition) const {
    const Tensor both = variance + std_ * std_;
    Tensor mean = at::full({}, means_[0], x.options());
    if (means_.size() > 1) {
      const Tensor means = at::tensor(means_, at::kDouble).to(x.device());
      mean = (at::softmax(log_likelihoods(x, both, means, condition), 1) * means).sum(1).view(both.sizes());
    }
    return (x * (std_ * std_) + variance * mean) / both;
  }

  /// Returns [B, grounds], up to a number for each image; minus infinity for the grounds that its class is not.
  static Tensor log_likelihoods(const Tensor& x, const Tensor& both, const Tensor& means, const Condition& condition) {
    const Tensor flat = x.flatten(1), pixel_sum = flat.sum(1, true);
    const double pixels = double(flat.size(1));
    const Tensor all = (pixel_sum * means - means.square() * (pixels / 2)) / both.view({-1, 1});  // |x|^2 is the same for each
    if (!condition.classes.defined()) return all;
    const Tensor wanted = condition.classes.to(x.device()).unsqueeze(1), own = at::arange(means.size(0), wanted.options()).unsqueeze(0);
    return at::where((wanted == own).logical_or(wanted >= means.size(0)), all,
                     at::full({}, -std::numeric_limits<double>::infinity(), all.options()));
  }

  std::vector<double> means_;
  double std_;
  Context c_;
};

class Gaussian final : public Exact {
 public:
  struct Options {
    double mean = 0, std = 0.5;
    void declare(Fields& f) {
      f.field("mean", mean, "mean of every pixel");
      f.field("std", std, "standard deviation of every pixel", more_than(0));
    }
  };
  static void check(const Options&, const Context& c) {
    check_condition("gaussian", {.classes = true}, c);  // all of which are the same
    Exact::check(c);
  }
  Gaussian(const Options& o, const Context& c) : Exact({o.mean}, o.std, c) {}
};

class Mixture final : public Exact {
 public:
  struct Options {
    std::vector<double> means{-0.5, 0, 0.5};
    double std = 0.1;
    void declare(Fields& f) {
      f.field("means", means, "means of the pixels of each ground; the grounds are the classes in their order");
      f.field("std", std, "standard deviation of every pixel about its ground", more_than(0));
      f.require(!means.empty(), "means", "needs at least one");
    }
  };
  static void check(const Options& o, const Context& c) {
    check_condition("mixture", {.classes = true}, c);
    Exact::check(c);
    const auto grounds = int64_t(o.means.size());
    if (c.classes != 0 && c.classes != grounds && c.classes != grounds + 1)
      throw ConfigError(fmt::format("means: has {} grounds, and the conditioner tells {} (with the null class, if it has one)", grounds,
                                    counted(c.classes, "class")));
  }
  Mixture(const Options& o, const Context& c) : Exact(o.means, o.std, c) {}
};

}  // namespace

void register_network_gaussian(Registry& r) {
  r.add<Network, Gaussian>("gaussian", "exact denoiser of Gaussian data; no weights");
  r.add<Network, Mixture>("mixture", "exact denoiser of a mixture of Gaussians, which are classes; no weights");
}

}  // namespace brume::plugins
