#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sum.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/errors.h"
#include "brume/core/autoencoder.h"
#include "brume/core/model_source.h"
#include "brume/core/noise_embedding.h"
#include "brume/core/objective.h"
#include "brume/core/rows.h"
#include "brume/core/sampler.h"
#include "brume/core/time_sampler.h"

namespace brume {

void declare_quantity(Fields& f, NoiseQuantity& value) {
  f.choice("input", value, "the form of the noise level that the network receives",
           {{"timestep", NoiseQuantity::timestep},
            {"variance", NoiseQuantity::variance},
            {"log_snr", NoiseQuantity::log_snr},
            {"quarter_log", NoiseQuantity::quarter_log},
            {"sigma", NoiseQuantity::sigma}});
}

double noise_quantity(NoiseQuantity quantity, double sigma, const NoiseSchedule& schedule) {
  switch (quantity) {
    case NoiseQuantity::timestep: return schedule.timestep(sigma);
    case NoiseQuantity::variance: return 1 / (1 + 1 / (sigma * sigma));
    case NoiseQuantity::log_snr: return -2 * std::log(sigma);
    case NoiseQuantity::quarter_log: return std::log(sigma) / 4;
    case NoiseQuantity::sigma: return sigma;
  }
  throw std::logic_error("unknown noise quantity");
}

double noise_units(double sigma, Target target) {
  const double snr = 1 / (sigma * sigma);
  switch (target) {
    case Target::noise: return 1;
    case Target::image: return snr;
    case Target::v: return snr / (1 + snr);
    case Target::flow: return 1 / ((1 + sigma) * (1 + sigma));
  }
  throw std::logic_error("unknown target");
}

double sigma_at_share(const NoiseSchedule& schedule, double u) {
  const double times = double(schedule.timesteps());
  if (times > 0) return schedule.sigma(std::clamp(std::floor(u * times), 0.0, times - 1));
  return schedule.sigma(schedule.t_min() + u * (schedule.t_max() - schedule.t_min()));
}

double within_schedule(const NoiseSchedule& schedule, double sigma) {
  return std::clamp(sigma, schedule.sigma(schedule.t_min()), schedule.sigma(schedule.t_max()));
}

Autoencoder::Normal Autoencoder::normal_of(at::Generator* random) {
  if (!random) return {};
  return [random](const Tensor& like) {
    return draw_rows(like.size(0),
                     [&](int64_t n) {
                       std::vector<int64_t> shape = like.sizes().vec();
                       shape.front() = n;
                       return at::randn(shape, *random, at::TensorOptions().dtype(at::kFloat));
                     })
        .to(like.device());
  };
}

namespace {
template <class T>
T refuse(const std::string& path) {
  throw ConfigError(fmt::format("no other model can be opened here, and '{}' is asked for", path));
}

class NoModels final : public ModelSource {
 public:
  OtherModel model(const std::string& path) const override { return refuse<OtherModel>(path); }
  std::shared_ptr<const NoisyClassifier> classifier(const std::string& path) const override {
    return refuse<std::shared_ptr<const NoisyClassifier>>(path);
  }
};
}  // namespace

FirstStage ModelSource::first_stage(const std::string& path, const ImageShape&, at::ScalarType) const { return refuse<FirstStage>(path); }
std::shared_ptr<const Classifier> ModelSource::features(const std::string& path) const {
  return refuse<std::shared_ptr<const Classifier>>(path);
}

const ModelSource& no_models() {
  static const NoModels none;
  return none;
}

std::vector<Weight> prefixed(const std::string& prefix, const std::vector<Weight>& weights) {
  std::vector<Weight> named = weights;
  for (Weight& w : named) w.name = prefix + w.name;
  return named;
}

void check_condition(std::string_view network, const ConditionParts& taken, const Network::Context& c) {
  struct Part {
    std::string_view name, option;
    bool takes, given;
  };
  const Part parts[] = {{"classes", "", taken.classes, c.classes > 0},
                        {"tokens", "; unet (with a transformer), dit and mmdit attend to them", taken.tokens, c.context_width > 0},
                        {"an image", "", taken.image, c.image_channels > 0},
                        {"a pooled vector", "; unet, dit, mmdit and mlp embed it", taken.vector, c.vector_width > 0},
                        {"sizes", "; unet and dit embed them", taken.sizes, c.size_ids > 0},
                        {"the guidance scale", "; unet and mmdit embed it", taken.guidance, c.guidance}};
  std::string all;
  for (const Part& part : parts)
    if (part.takes) all += fmt::format("{}{}", all.empty() ? "" : ", ", part.name);
  for (const Part& part : parts)
    if (part.given && !part.takes)
      throw ConfigError(
          fmt::format("the conditioner gives {}, and {} takes {}{}", part.name, network, all.empty() ? "no condition" : all, part.option));
}

Autoencoder::Reconstruction Autoencoder::reconstruct(const Tensor&, at::Generator&) const {
  throw ConfigError("there is nothing to train in this autoencoder");
}

const NoiseSchedule& Run::training_times() const {
  if (!schedule) throw std::logic_error("a sampler that needs the training times was run without a noise schedule");
  return *schedule;
}

void Run::report(const Step& step) const {
  const auto finite = [](const Tensor& t) { return std::isfinite(t.detach().sum().item<double>()); };
  if (!finite(step.x0))
    throw ConfigError(fmt::format("step {} of {} (sigma = {:.6g}): {}; nothing was written", step.index + 1, step.count, step.sigma,
                                  finite(step.x) ? "the estimate of the image, from the network or a guidance, is NaN or Inf"
                                                 : "the sampler came here with NaN or Inf; the network did not make it"));
  if (observer && !observer(step)) throw Interrupted();
}

}  // namespace brume
