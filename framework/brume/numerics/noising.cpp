#include "brume/numerics/noising.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/huber_loss.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "brume/config/counted.h"
#include "brume/config/foreign.h"
#include "brume/core/rows.h"
#include "brume/core/step_parts.h"

namespace brume {
namespace {

/// Returns the factor that makes an error of x0 one of the target.
double target_scale(Target target, double sigma) {
  switch (target) {
    case Target::noise: return -1 / sigma;
    case Target::image: return 1;
    case Target::v: return -std::sqrt(1 + sigma * sigma) / sigma;
    case Target::flow: return -(1 + sigma) / sigma;
  }
  throw std::logic_error("unknown target");
}

/// Makes white noise a stationary process along one dimension whose neighbours have the correlation `r`, and variance 1:
/// n_i <- r n_(i-1) + sqrt(1 - r^2) n_i.
void correlate(Tensor& noise, int64_t dim, double r) {
  for (int64_t i = 1; i < noise.size(dim); ++i) {
    Tensor here = noise.select(dim, i);
    here.mul_(std::sqrt(1 - r * r)).add_(noise.select(dim, i - 1), r);
  }
}

/// Calls TimeSampler::learn() with all images of the batch.
void learn(const TimeSampler& time, const NoiseSchedule& schedule, const TimeSampler::Draw& draw, const Tensor& losses,
           const std::vector<Weight>& memory) {
  const auto use = [&time, &schedule, memory](const TimeSampler::Draw& all, const Tensor& of_all) {
    calling(time, "learn()", [&] { time.learn(schedule, all, of_all, memory); });
  };
  if (!batch_part() || memory.empty()) return use(draw, losses);
  const auto doubles = at::TensorOptions().dtype(at::kDouble);
  const Tensor rows = at::stack({at::tensor(draw.sigmas, doubles), at::tensor(draw.weights, doubles), losses.to(at::kCPU, at::kDouble)}, 1);
  when_whole(rows, [use](const Tensor& all) {
    const auto column = [&](int64_t i) {
      const Tensor values = all.select(1, i).contiguous();
      return std::vector<double>(values.data_ptr<double>(), values.data_ptr<double>() + values.numel());
    };
    use({column(0), column(1)}, all.select(1, 2));
  });
}

thread_local ErrorWeights* error_weights = nullptr;

TimeSampler::Draw checked_draw(const TimeSampler& time, const NoiseSchedule& schedule, int64_t count, const std::vector<Weight>& memory,
                               at::Generator& random) {
  TimeSampler::Draw drawn = calling(time, "draw()", [&] { return time.draw(schedule, count, memory, random); });
  if (int64_t(drawn.sigmas.size()) != count || int64_t(drawn.weights.size()) != count)
    blame(&time, fmt::format("draw() returned {} noise levels and {} for {}", drawn.sigmas.size(), counted(drawn.weights.size(), "weight"),
                             counted(count, "image")));
  return drawn;
}

}  // namespace

ErrorWeights::ErrorWeights(Tensor weights) : weights_(std::move(weights)), outer_(error_weights) { error_weights = this; }
ErrorWeights::~ErrorWeights() { error_weights = outer_; }

Tensor ErrorWeights::apply(const Tensor& penalty) {
  if (!error_weights || !error_weights->weights_.defined()) return penalty;
  error_weights->used_ = true;
  const Tensor& w = error_weights->weights_;
  if (penalty.dim() != 4 || penalty.size(0) != w.size(0))
    throw std::logic_error(fmt::format("weights of {}, and the error of {}", counted(w.size(0), "image"), penalty.size(0)));
  return penalty * at::adaptive_avg_pool2d(w.to(penalty.device(), penalty.scalar_type()), {penalty.size(2), penalty.size(3)});
}

void TrainingNoise::declare(Fields& f) {
  f.field("offset", offset, "standard deviation of a number that is added to the noise of each channel; 0.05 to 0.1 is usual", at_least(0));
  f.field("correlation", correlation, "correlation of neighbouring pixels; 0 = white noise", within(0, 0.999));
  f.field("perturbation", perturbation, "more noise in the network's input than in the target, as a share of it; 0.1 is usual",
          at_least(0));
}

NoisyBatch add_noise(const Tensor& x0, std::vector<double> sigmas, at::Generator& random, const TrainingNoise& kind) {
  const auto options = at::TensorOptions().dtype(x0.scalar_type());
  const auto normal = [&](std::vector<int64_t> shape) {
    return draw_rows(shape.front(), [&](int64_t n) {
      shape.front() = n;
      return at::randn(shape, random, options);
    });
  };
  Tensor noise = normal(x0.sizes().vec());
  if (kind.correlation > 0)
    for (int64_t dim = 2; dim < x0.dim(); ++dim) correlate(noise, dim, kind.correlation);
  if (kind.offset > 0) noise = noise + normal({x0.size(0), x0.size(1), 1, 1}) * kind.offset;
  const auto scaled = [&](const Tensor& n) { return x0 + n.to(x0.device()) * each_image(sigmas, x0, [](double s) { return s; }); };
  const Tensor x = scaled(kind.perturbation > 0 ? noise + normal(x0.sizes().vec()) * kind.perturbation : noise);
  return {x0, noise.to(x0.device()), x, std::move(sigmas)};
}

void TargetError::declare(Fields& f, std::string_view usual_weighting) {
  f.choice("loss", loss, "penalty of the error", {{"mse", Penalty::mse}, {"mae", Penalty::mae}, {"huber", Penalty::huber}});
  f.field("delta", delta, "error at which the huber loss turns from square to linear", more_than(0));
  f.unused(loss != Penalty::huber, "delta", "loss is not huber");
  f.field("weighting", weighting, "weight of each noise level", usual_weighting);
  f.section("noise", noise, "the noise that is added to images, if it is not white");
}

void TargetError::declare_target(Fields& f) {
  f.choice("target", target, "whose error is measured: v is the v-loss, flow the velocity of flow matching",
           {{"noise", Target::noise}, {"image", Target::image}, {"v", Target::v}, {"flow", Target::flow}});
}

Tensor TargetError::per_image(const NoisyBatch& b, const Tensor& f, const Parameterization& p) const {
  const Tensor e = scaled_error(b, f, p, [&](double s) { return target_scale(target, s); });
  const Tensor penalty = loss == Penalty::mse   ? e * e
                         : loss == Penalty::mae ? e.abs()
                                                : at::huber_loss(e, at::zeros_like(e), at::Reduction::None, delta);
  return (ErrorWeights::apply(penalty) *
          each_image(b.sigmas, e, [&](double s) { return calling(*weighting, "weight()", [&] { return weighting->weight(s, target); }); }))
      .flatten(1)
      .mean(1);
}

TimeSampler::Draw draw_times(const TimeSampler& time, const NoiseSchedule& schedule, int64_t count, const std::vector<Weight>& memory,
                             at::Generator& random) {
  const BatchPart* part = batch_part();
  TimeSampler::Draw drawn = checked_draw(time, schedule, part ? part->total : count, memory, random);
  if (!part) return drawn;
  for (std::vector<double>* all : {&drawn.sigmas, &drawn.weights}) {
    const auto begin = all->begin() + part->first;
    *all = std::vector<double>(begin, begin + part->count);
  }
  return drawn;
}

std::vector<double> shared_levels(const TimeSampler& time, const NoiseSchedule& schedule, int64_t levels, int64_t count,
                                  const std::vector<Weight>& memory, at::Generator& random) {
  const std::vector<double> drawn = checked_draw(time, schedule, levels, memory, random).sigmas;
  const BatchPart* part = batch_part();
  std::vector<double> sigmas;
  for (int64_t row = 0; row < count; ++row) sigmas.push_back(drawn[size_t(((part ? part->first : 0) + row) % levels)]);
  return sigmas;
}

Tensor mean_loss(const TimeSampler& time, const NoiseSchedule& schedule, const TimeSampler::Draw& draw, const Tensor& losses,
                 const std::vector<Weight>& memory) {
  learn(time, schedule, draw, losses.detach(), memory);
  if (std::all_of(draw.weights.begin(), draw.weights.end(), [](double w) { return w == 1; })) return losses.mean();
  return (losses * at::tensor(draw.weights, at::TensorOptions().dtype(at::kDouble)).to(losses.options())).mean();
}

Tensor denoising_loss(const TargetError& error, const TimeSampler& time, const TrainableModel& model, const Tensor& x0,
                      const Condition& condition, Training& training, at::Generator& random) {
  const TimeSampler::Draw drawn = draw_times(time, model.schedule(), x0.size(0), training.memory, random);
  const NoisyBatch b = add_noise(x0, drawn.sigmas, random, error.noise);
  const Tensor losses = error.per_image(b, model.network(b.x, b.sigmas, condition), model.parameterization());
  return mean_loss(time, model.schedule(), drawn, losses, training.memory);
}

}  // namespace brume
