#pragma once
// What the objectives share: noise on a batch, one level per image, and the error of what a network makes of it.
#include <ATen/ops/tensor.h>

#include <memory>
#include <vector>

#include "brume/config/fields.h"
#include "brume/core/objective.h"
#include "brume/core/time_sampler.h"

namespace brume {

/// Returns f(sigma) for each image, [B, 1, ...] of the type of `like`, to be multiplied with it.
template <class F>
Tensor each_image(const std::vector<double>& sigmas, const Tensor& like, const F& f) {
  std::vector<double> values;
  values.reserve(sigmas.size());
  for (const double s : sigmas) values.push_back(f(s));
  std::vector<int64_t> shape(size_t(like.dim()), 1);
  shape[0] = like.size(0);
  return at::tensor(values, at::TensorOptions().dtype(at::kDouble)).to(like.scalar_type()).view(shape).to(like.device());
}

/// The noise of a training, if it is not white.
struct TrainingNoise {
  double offset = 0;        ///< a number per image and channel, N(0, offset^2), is added (Guttenberg 2023, "Diffusion with Offset Noise")
  double correlation = 0;   ///< of neighbours in a row or a column: r^(|dx| + |dy|) between any two pixels, with variance 1
  double perturbation = 0;  ///< more noise in the network's input than in the target (Ning et al. 2023, sec. 4: gamma)
  void declare(Fields& f);
};

/// x = x0 + sigma noise.
struct NoisyBatch {
  Tensor x0, noise, x;
  std::vector<double> sigmas;  ///< one per image
};
/// Returns x = x0 + sigma noise; with a perturbation, x = x0 + sigma (noise + perturbation xi). What is not white is drawn after the noise,
/// from the same generator.
NoisyBatch add_noise(const Tensor& x0, std::vector<double> sigmas, at::Generator& random, const TrainingNoise& kind = {});

/// Returns (D - x0) times unit(sigma), where D = c_skip x + c_out F: without a division by c_out, and without x if it would cancel.
template <class U>
Tensor scaled_error(const NoisyBatch& b, const Tensor& f, const Parameterization& p, const U& unit) {
  return f * each_image(b.sigmas, b.x0, [&](double s) { return p.c_out(s) * unit(s); }) -
         b.x0 * each_image(b.sigmas, b.x0, [&](double s) { return (1 - p.c_skip(s)) * unit(s); }) +
         b.noise * each_image(b.sigmas, b.x0, [&](double s) { return p.c_skip(s) * s * unit(s); });
}

/// While one lives, the errors that TargetError measures on this thread count by `weights`, [B, 1, H, W] of the pixels of the images of a
/// batch: of a latent's each, by the mean of its pixels (kohya-ss/sd-scripts' masked loss). Undefined weights are 1.
class ErrorWeights {
 public:
  explicit ErrorWeights(Tensor weights);
  ~ErrorWeights();
  ErrorWeights(const ErrorWeights&) = delete;
  ErrorWeights& operator=(const ErrorWeights&) = delete;
  /// Returns whether an error was measured.
  bool used() const { return used_; }

 private:
  friend struct TargetError;
  static Tensor apply(const Tensor& penalty);
  Tensor weights_;
  mutable bool used_ = false;
  ErrorWeights* outer_;
};

/// The weighted error of a target, as `simple` and what builds on it have it.
struct TargetError {
  enum class Penalty { mse, mae, huber };
  Penalty loss = Penalty::mse;
  Target target = Target::noise;
  double delta = 1;
  std::shared_ptr<const Weighting> weighting{};
  TrainingNoise noise{};

  /// Declares loss, delta, weighting and noise; declare_target() declares the target.
  void declare(Fields& f, std::string_view usual_weighting = "none");
  void declare_target(Fields& f);
  /// Returns the mean over each image, [B].
  Tensor per_image(const NoisyBatch& batch, const Tensor& f, const Parameterization& p) const;
};

/// Draws a noise level for each of `count` images; for a part of a batch (core/rows.h), those that its rows have in the whole batch. Throws
/// as blame() does if the sampler returns another number of them.
TimeSampler::Draw draw_times(const TimeSampler& time, const NoiseSchedule& schedule, int64_t count, const std::vector<Weight>& memory,
                             at::Generator& random);

/// Returns a noise level for each of `count` images: `levels` draws, which the images of the whole batch take by turns. Throws as
/// draw_times() does.
std::vector<double> shared_levels(const TimeSampler& time, const NoiseSchedule& schedule, int64_t levels, int64_t count,
                                  const std::vector<Weight>& memory, at::Generator& random);

/// Returns the mean of the losses [B] with the weights of their draw, which the sampler learns from.
Tensor mean_loss(const TimeSampler& time, const NoiseSchedule& schedule, const TimeSampler::Draw& draw, const Tensor& losses,
                 const std::vector<Weight>& memory);

/// Returns the whole of such a loss: a time, noise, the network, its error.
Tensor denoising_loss(const TargetError& error, const TimeSampler& time, const TrainableModel& model, const Tensor& x0,
                      const Condition& condition, Training& training, at::Generator& random);

/// An objective that is no more than that: what tells `simple`, `edm` and `flow` apart are their targets and defaults. `O` has
/// `error`, `time` and `declare`.
template <class O>
class DenoisingObjective final : public Objective {
 public:
  using Options = O;
  explicit DenoisingObjective(const Options& o) : o_(o) {}

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    return denoising_loss(o_.error, *o_.time, model, x0, condition, training, random);
  }
  std::vector<Weight> memory(const NoiseSchedule& schedule) const override { return o_.time->memory(schedule); }

 private:
  Options o_;
};

}  // namespace brume
