#include "brume/numerics/bound.h"

#include <ATen/TensorOperators.h>

#include "brume/config/errors.h"

namespace brume {

void BoundError::declare(Fields& f) {
  f.choice("variance", variance, "variance of the model's steps, if it learns none",
           {{"small", StepVariance::small}, {"large", StepVariance::large}});
  declare_chain(f);
}

void BoundError::declare_chain(Fields& f) {
  f.choice("terms", terms, "sum = the whole bound, one term per step; mean = one term", {{"sum", Terms::sum}, {"mean", Terms::mean}});
  f.field("steps", steps, "steps of the bound on a continuous schedule; a discrete one has its training times", at_least(2));
}

AncestralChain BoundError::chain(const NoiseSchedule& schedule) const {
  return training_chain(schedule, schedule.timesteps() > 0 ? 0 : steps);
}

void BoundError::check(const NoiseSchedule& schedule) const { chain(schedule); }

BoundError::Drawn BoundError::draw(const TimeSampler& time, const NoiseSchedule& schedule, int64_t count, const std::vector<Weight>& memory,
                                   at::Generator& random) const {
  const AncestralChain levels = chain(schedule);
  Drawn d{draw_times(time, schedule, count, memory, random), {}, {}, int64_t(levels.size())};
  for (const double sigma : d.time.sigmas) {
    const size_t i = levels.index(sigma);
    d.sigmas.push_back(levels.sigma(i));
    d.steps.push_back(levels.step(i));
  }
  return d;
}

Tensor BoundError::per_image(const NoisyBatch& b, const Drawn& drawn, const TrainableModel::Prediction& y, const TrainableModel& model,
                             Mean mean) const {
  const StepVariance kind = model.variance() == LearnedVariance::learned         ? StepVariance::learned
                            : model.variance() == LearnedVariance::learned_range ? StepVariance::learned_range
                                                                                 : variance;
  const Tensor error = scaled_error(b, mean == Mean::fixed ? y.f.detach() : y.f, model.parameterization(), [](double) { return 1.0; });
  const Tensor bits = vlb_terms(b.x0, error, drawn.steps, kind, y.variance);
  return terms == Terms::sum ? bits * double(drawn.chain) : bits;
}

}  // namespace brume
