// Plugins that throw, or return what they must not: brume says whose fault it is.
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <stdexcept>

#include "brume/config/plugin.h"
#include "brume/core/autoencoder.h"
#include "brume/core/dataset.h"
#include "brume/core/guidance.h"
#include "brume/core/network.h"
#include "brume/core/noise_schedule.h"
#include "brume/core/objective.h"
#include "brume/core/optimizer.h"
#include "brume/core/sampler.h"
#include "brume/core/spacing.h"

namespace {
using namespace brume;

struct NoOptions {
  void declare(Fields&) {}
};

enum class Fault { error, number, torch, undefined, shape, detached };

/// Throws, or returns something that is not of the shape of `like`.
template <Fault fault>
Tensor faulty(const Tensor& like) {
  if (fault == Fault::error) throw std::runtime_error("on purpose");
  if (fault == Fault::number) throw 42;
  if (fault == Fault::torch) return like + at::zeros({7, 7, 7});
  return fault == Fault::undefined ? Tensor() : at::zeros({2, 1});
}

template <Fault fault>
class FaultySampler final : public Sampler {
 public:
  using Options = NoOptions;
  explicit FaultySampler(const Options&) {}
  SamplerTraits traits() const override { return {.order = 1}; }
  Tensor sample(const Denoiser&, Tensor x, const std::vector<double>&, Run&) const override { return faulty<fault>(x); }
};

template <Fault fault>
class FaultyNetwork final : public Network {
 public:
  using Options = NoOptions;
  FaultyNetwork(const Options&, const Context&) {}
  Tensor forward(const Tensor& input, const Tensor&, const Condition&, at::Generator*, const Taps&) const override {
    return faulty<fault>(input);
  }
  NoiseQuantity quantity() const override { return NoiseQuantity::timestep; }
  std::vector<Weight> weights() const override { return {}; }
};

class Unmade final : public Network {
 public:
  using Options = NoOptions;
  Unmade(const Options&, const Context&) { throw std::out_of_range("no such row"); }
  Tensor forward(const Tensor& input, const Tensor&, const Condition&, at::Generator*, const Taps&) const override { return input; }
  NoiseQuantity quantity() const override { return NoiseQuantity::timestep; }
  std::vector<Weight> weights() const override { return {}; }
};

template <Fault fault>
class FaultyObjective final : public Objective {
 public:
  using Options = NoOptions;
  explicit FaultyObjective(const Options&) {}
  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training&, at::Generator&) const override {
    if (fault == Fault::detached) return model.network(x0, std::vector<double>(size_t(x0.size(0)), 1.0), condition).detach().mean();
    return faulty<fault>(x0);
  }
};

class Falling final : public NoiseSchedule {
 public:
  using Options = NoOptions;
  explicit Falling(const Options&) {}
  double sigma(double t) const override { return std::exp(4 - 8 * t); }
  double time(double sigma) const override { return (4 - std::log(sigma)) / 8; }
  double t_min() const override { return 0; }
  double t_max() const override { return 1; }
};

class Rising final : public Spacing {
 public:
  using Options = NoOptions;
  explicit Rising(const Options&) {}
  std::vector<double> sigmas(const NoiseSchedule&, int64_t steps) const override {
    std::vector<double> all;
    for (int64_t i = 0; i <= steps; ++i) all.push_back(1 + double(i));
    return all;
  }
};

/// Returns no denoiser, or one whose estimate is undefined.
template <Fault fault>
class FaultyGuidance final : public Guidance {
 public:
  using Options = NoOptions;
  explicit FaultyGuidance(const Options&) {}
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser>, const GuidedModel&) const override {
    if (fault == Fault::undefined) return nullptr;
    return std::make_shared<Inner>();
  }

 private:
  class Inner final : public Denoiser {
   public:
    Estimate denoise(const Tensor& x, double, const Condition&) const override { return {faulty<fault>(x), {}, {}}; }
  };
};

template <Fault fault>
class FaultyDataset final : public Dataset {
 public:
  using Options = NoOptions;
  FaultyDataset(const Options&, const Context&) {}
  int64_t size() const override { return 10; }
  const std::vector<std::string>& classes() const override { return classes_; }
  Annotation read(int64_t, uint64_t, std::span<float>) const override {
    if (fault == Fault::error) throw std::runtime_error("on purpose");
    return {.label = 9};
  }

 private:
  std::vector<std::string> classes_{"a", "b", "c", "d", "e"};
};

class FaultyOptimizer final : public Optimizer {
 public:
  using Options = NoOptions;
  FaultyOptimizer(const Options&, const Context&) {}
  double update(int64_t) override { throw std::runtime_error("on purpose"); }
  double learning_rate(int64_t) const override { return 1; }
  std::vector<Weight> state() const override { return {}; }
};

}  // namespace

BRUME_PLUGIN("faulty_plugins") {
  registry.add<Sampler, FaultySampler<Fault::error>>("throws", "throws");
  registry.add<Sampler, FaultySampler<Fault::number>>("throws_42", "throws a number");
  registry.add<Sampler, FaultySampler<Fault::torch>>("throws_torch", "throws LibTorch's error");
  registry.add<Sampler, FaultySampler<Fault::undefined>>("undefined", "returns an undefined tensor");
  registry.add<Sampler, FaultySampler<Fault::shape>>("misshapen", "returns another shape");
  registry.add<Network, FaultyNetwork<Fault::error>>("throws", "throws");
  registry.add<Network, FaultyNetwork<Fault::undefined>>("undefined", "returns an undefined tensor");
  registry.add<Network, FaultyNetwork<Fault::shape>>("misshapen", "returns another shape");
  registry.add<Network, Unmade>("unmade", "throws when it is made");
  registry.add<Objective, FaultyObjective<Fault::error>>("throws", "throws");
  registry.add<Objective, FaultyObjective<Fault::detached>>("detached", "returns a detached loss");
  registry.add<Objective, FaultyObjective<Fault::undefined>>("undefined", "returns an undefined tensor");
  registry.add<Objective, FaultyObjective<Fault::shape>>("misshapen", "returns no scalar");
  registry.add<NoiseSchedule, Falling>("falling", "sigma falls with time");
  registry.add<Spacing, Rising>("rising", "its sigmas rise");
  registry.add<Guidance, FaultyGuidance<Fault::undefined>>("no_denoiser", "returns no denoiser");
  registry.add<Guidance, FaultyGuidance<Fault::shape>>("misshapen", "its denoiser returns another shape");
  registry.add<Dataset, FaultyDataset<Fault::error>>("throws", "throws");
  registry.add<Dataset, FaultyDataset<Fault::shape>>("no_such_class", "returns a class that is out of range");
  registry.add<Optimizer, FaultyOptimizer>("throws", "throws");
}
