// Denoising diffusion GANs (Xiao et al. 2022, "Tackling the Generative Learning Trilemma with Denoising Diffusion GANs"): few large steps,
// whose distributions are not Gaussian, are learned by a generator with a latent z against a discriminator that knows the step.
//
//   x_t ~ q(x_t | x0),  x_next ~ q(x_next | x_t);   x0' = G(x_next, z, next),  x_t' ~ q(x_t | x_next, x0')           (eq. 4 and 5)
//   L_G = softplus(-D(x_t', x_next, t)),   L_D = softplus(-D(x_t, x_next, t)) + softplus(D(x_t', x_next, t))           (eq. 3)
//   every `r1_every` steps, L_D += r1 / 2 |grad D(x_t)|^2       (Mescheder et al. 2018, eq. 9)
//
// z is the condition's vector (conditioner `latent`); the discriminator is any network that takes x_next as an image of its condition, and
// its logits count with their mean. Both learn from the same images and noise in each step. The steps are the spacing's, as the sampler
// `ddgan` takes them.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "brume/config/foreign.h"
#include "brume/config/registry.h"
#include "brume/core/rows.h"
#include "brume/core/spacing.h"
#include "brume/numerics/adversarial.h"
#include "brume/numerics/ancestral.h"
#include "brume/numerics/companion_network.h"
#include "brume/numerics/extra_vector.h"
#include "brume/numerics/noising.h"

namespace brume::plugins {
namespace {

struct DdganOptions {
  int64_t steps = 4, r1_every = 15;
  double r1 = 0.05;
  std::shared_ptr<const Spacing> spacing;
  Deferred<Network> discriminator;
  Deferred<Optimizer> optimizer;
  void declare(Fields& f) {
    f.field("steps", steps, "from noise to image; sample with as many", within(1, 1000));
    f.field("spacing", spacing, "the noise levels of the steps; sample with the same", "trailing");
    f.field("discriminator", discriminator, "the network that tells true steps from generated ones", "unet");
    f.field("optimizer", optimizer, "of the discriminator", "adam");
    f.field("r1", r1, "factor of half the squared gradient of the discriminator at images (gamma); 0 = none", at_least(0));
    f.field("r1_every", r1_every, "steps from one such gradient to the next", at_least(1));
  }
};

class OpenDdgan final : public OpenObjective {
 public:
  OpenDdgan(const DdganOptions& o, const JointObjective::Context& c)
      : o_(o), dtype_(c.dtype), discriminator_(make_discriminator(o.discriminator, c, true)) {
    if (c.network.vector_width == 0)
      throw ConfigError("ddgan needs the latent of its generator; add {type: latent} to model.conditioner, alone or in a composite");
  }

  std::vector<Companion> companions() const override { return {{"discriminator", discriminator_->weights(), o_.optimizer}}; }
  std::vector<std::pair<std::string, double>> figures() const override { return figures_; }

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const Step s = draw(model.schedule(), x0, random);
    const Tensor z = rows_of_noise({x0.size(0), vector_width(condition)}, x0, random);
    const Tensor xi = rows_of_noise(x0.sizes().vec(), x0, random);
    const Tensor image = denoised(model, s.above, s.from, with_vector(condition, z));
    const Tensor mean = image + (s.above - image) * pair(s, x0, [](double from, double to) { return to / from * (to / from); });
    const Tensor fake = mean + xi * pair(s, x0, [](double from, double to) { return std::sqrt(small_variance(from, to)); });

    const Judge judge{*this, s, model.schedule(), condition};
    const Tensor seen = fake.detach().set_requires_grad(true);
    const Tensor of_fake = judge(seen);
    const Tensor generator = generator_loss(of_fake);
    const Tensor gradient = torch::autograd::grad({generator}, {seen}, {}, /*retain_graph=*/true)[0];

    const bool penal = o_.r1 > 0 && training.step % o_.r1_every == 0;
    const Tensor real = s.below.detach().set_requires_grad(penal);
    const Tensor of_real = judge(real);
    Tensor learned = discriminator_loss(of_real, judge(fake.detach()));
    expect_finite_discriminator(learned, training.step);
    if (penal) learned = learned + squared_gradient(of_real, real) * (o_.r1 / 2);
    figures_ = {{"generator", generator.item<double>()},
                {"discriminator", learned.item<double>()},
                {"verdict_real", of_real.mean().item<double>()},
                {"verdict_fake", of_fake.mean().item<double>()}};
    return with_gradient(generator, fake, gradient) + learned;
  }

 private:
  /// One step of each image, in the sigma frame.
  struct Step {
    std::vector<double> from, to;
    Tensor above, below;  ///< x at `from` and at `to`
  };

  /// D at the step of each image, in the network's frame: x there is alpha(sigma) (x0 + sigma noise).
  struct Judge {
    const OpenDdgan& d;
    const Step& s;
    const NoiseSchedule& schedule;
    const Condition& condition;
    Tensor operator()(const Tensor& below) const {
      const auto framed = [&](const Tensor& x, const std::vector<double>& sigmas) {
        return (x * each_image(sigmas, x, [&](double sigma) { return schedule.signal(sigma); })).to(d.dtype_);
      };
      const Tensor levels = noise_inputs(*d.discriminator_, s.from, schedule).to(below.device());
      const Condition known = class_condition(condition, framed(s.above, s.from));
      return calling(*d.discriminator_, "forward()", [&] { return d.discriminator_->forward(framed(below, s.to), levels, known, nullptr); })
          .to(at::kFloat);
    }
  };

  static Tensor rows_of_noise(std::vector<int64_t> shape, const Tensor& like, at::Generator& random) {
    return draw_rows(shape.front(),
                     [&](int64_t n) {
                       shape.front() = n;
                       return at::randn(shape, random, at::TensorOptions().dtype(like.scalar_type()));
                     })
        .to(like.device());
  }

  template <class F>
  static Tensor pair(const Step& s, const Tensor& like, const F& f) {
    size_t i = 0;
    return each_image(s.from, like, [&](double from) { return f(from, s.to[i++]); });
  }

  Step draw(const NoiseSchedule& schedule, const Tensor& x0, at::Generator& random) const {
    const std::vector<double> sigmas = o_.spacing->sigmas(schedule, o_.steps);
    const auto steps = int64_t(sigmas.size()) - 1;
    const Tensor drawn =
        draw_rows(x0.size(0), [&](int64_t n) { return at::randint(steps, {n}, random, at::TensorOptions().dtype(at::kLong)); });
    Step s;
    for (int64_t i = 0; i < x0.size(0); ++i) {
      const auto k = size_t(drawn.data_ptr<int64_t>()[i]);
      s.from.push_back(sigmas[k]), s.to.push_back(sigmas[k + 1]);
    }
    const Tensor first = rows_of_noise(x0.sizes().vec(), x0, random), second = rows_of_noise(x0.sizes().vec(), x0, random);
    s.below = x0 + first * each_image(s.to, x0, [](double to) { return to; });
    s.above = s.below + second * pair(s, x0, [](double from, double to) { return std::sqrt((from - to) * (from + to)); });
    return s;
  }

  DdganOptions o_;
  at::ScalarType dtype_;
  std::shared_ptr<Network> discriminator_;
  mutable std::vector<std::pair<std::string, double>> figures_;
};

class Ddgan final : public JointObjective {
 public:
  using Options = DdganOptions;
  explicit Ddgan(const Options& o) : o_(o) {}
  std::unique_ptr<OpenObjective> open(const Context& context) const override { return std::make_unique<OpenDdgan>(o_, context); }
  void check(const Requirements& r) const override {
    const int64_t times = r.schedule.timesteps();
    if (times > 0 && o_.steps > times) throw ConfigError(fmt::format("steps: {} are more than the schedule's {} times", o_.steps, times));
  }

 private:
  Options o_;
};

}  // namespace

void register_objective_ddgan(Registry& r) {
  r.add<Objective, Ddgan>("ddgan", "a denoising diffusion GAN: images in few steps, against a discriminator");
}

}  // namespace brume::plugins
