// Latent adversarial diffusion distillation (Sauer et al. 2024, "Fast High-Resolution Image Synthesis with Latent Adversarial Diffusion
// Distillation", sec. 3): a few-step generator against heads that see the frozen teacher's features of noised latents.
//
//   x = D_model(x0 + sigma_k n, sigma_k), sigma_k a level of the spacing;   features of y: those of the teacher at y + sigma n'
//   L_G = -mean heads(features of x)
//   L_D = mean max(0, 1 - heads(features of x0)) + mean max(0, 1 + heads(features of x))
//
// The paper's real images are the teacher's own, with guidance: a data set that `brume sample` made. Begin with the teacher's weights, by
// `train.from`. All images of a batch have one sigma, so that the teacher is called once for each of the two. Sample with `consistency`
// over the same spacing.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/nn/blocks/feature_heads.h"
#include "brume/numerics/adversarial.h"
#include "brume/numerics/companion_network.h"
#include "brume/numerics/extra_vector.h"
#include "brume/numerics/noising.h"
#include "brume/numerics/teacher.h"

namespace brume::plugins {
namespace {

struct LaddOptions {
  std::filesystem::path teacher;
  int64_t steps = 1, width = 64;
  std::vector<std::string> blocks{};
  std::shared_ptr<const Spacing> spacing;
  std::shared_ptr<const TimeSampler> time;
  Deferred<Optimizer> optimizer;
  void declare(Fields& f) {
    f.field("teacher", teacher, "model.safetensors of the trained model, of the model's network");
    f.field("steps", steps, "of the model; sample with as many", within(1, 1000));
    f.field("spacing", spacing, "the noise levels of the steps; sample with the same", "trailing");
    f.field("blocks", blocks, "the teacher's blocks whose features are judged; empty = all");
    f.field("width", width, "hidden channels of a head", at_least(2));
    f.require(width % 2 == 0, "width", "must be even");
    f.field("time", time, "distribution of the noise levels of what is judged", "logit_normal");
    f.field("optimizer", optimizer, "of the heads", "adam");
  }
};

/// Returns a condition of zeros with every part that a network of this context reads, for one image.
Condition blank(const Network::Context& c) {
  const auto zeros = [](const std::vector<int64_t>& shape) { return at::zeros(shape, at::TensorOptions().dtype(at::kFloat)); };
  Condition blank;
  if (c.classes > 0) blank.classes = at::zeros({1}, at::TensorOptions().dtype(at::kLong));
  if (c.context_width > 0) blank.context = zeros({1, 1, c.context_width});
  if (c.image_channels > 0) blank.image = zeros({1, c.image_channels, c.input.height, c.input.width});
  if (c.vector_width > 0) blank.vector = zeros({1, c.vector_width});
  if (c.size_ids > 0) blank.sizes = zeros({1, c.size_ids});
  if (c.guidance) blank.guidance = zeros({1});
  return blank;
}

/// Records the outputs of blocks, in their order.
struct Record {
  explicit Record(const std::vector<std::string>& blocks) : outputs(blocks.size()) {
    for (size_t i = 0; i < blocks.size(); ++i)
      taps.blocks[blocks[i]] = [this, i](const Tensor&, const std::function<Tensor()>& compute) { return outputs[i] = compute(); };
  }
  Record(const Record&) = delete;
  Record& operator=(const Record&) = delete;
  std::vector<Tensor> outputs;
  Taps taps;
};

/// Returns the blocks that are judged. Throws ConfigError if the network has none of a name.
std::vector<std::string> judged_blocks(const std::vector<std::string>& asked, const TapPoints& points) {
  if (points.blocks.empty()) throw ConfigError("ladd: the network names no blocks, whose features could be judged; dit and unet do");
  Taps named;
  for (const std::string& block : asked) named.blocks[block] = {};
  named.check(points);
  return asked.empty() ? points.blocks : asked;
}

class OpenLadd final : public OpenObjective {
 public:
  OpenLadd(const LaddOptions& o, const JointObjective::Context& c) : o_(o), build_(c.network.seed) {
    const std::shared_ptr<Network> like = c.model.make(c.network);
    o_.blocks = judged_blocks(o.blocks, like->tap_points());
    Record seen(o_.blocks);
    const ImageShape& shape = c.network.input;
    const at::NoGradGuard no_grad;
    like->forward(at::zeros({1, shape.channels, shape.height, shape.width}, at::TensorOptions().dtype(at::kFloat)), at::zeros({1}),
                  blank(c.network), nullptr, seen.taps);
    std::vector<int64_t> channels;
    for (const Tensor& features : seen.outputs) channels.push_back(nn::feature_tokens(features).size(2));
    heads_ = std::make_unique<nn::FeatureHeads>(build_, channels, o.width, c.network.classes);
    move_to(build_.weights(), c.device);
  }

  std::vector<Companion> companions() const override { return {{"heads", build_.weights(), o_.optimizer}}; }
  std::vector<std::pair<std::string, double>> figures() const override { return figures_; }

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const OtherModel teacher = open_teacher(training, o_.teacher, x0);
    if (!teacher.tapped)
      throw ConfigError(fmt::format("the teacher '{}' has no network, whose features could be judged", o_.teacher.string()));
    const Tensor image = few_step_images(model, *o_.spacing, o_.steps, x0, condition, random);
    const double sigma = o_.time->draw(model.schedule(), 1, training.memory, random).sigmas.front();
    const std::vector<double> levels(size_t(x0.size(0)), sigma);
    const Tensor fake = add_noise(image.detach(), levels, random).x.set_requires_grad(true), real = add_noise(x0, levels, random).x;

    const std::vector<Tensor> of_fake = features(teacher, fake, sigma, condition);
    const Tensor generator = -judge(of_fake, sigma, condition).mean();
    const Tensor gradient = torch::autograd::grad({generator}, {fake})[0];
    std::vector<Tensor> still;
    still.reserve(of_fake.size());
    for (const Tensor& f : of_fake) still.push_back(f.detach());
    const Tensor false_logits = judge(still, sigma, condition), true_logits = [&] {
      const auto known = [&] {
        const at::NoGradGuard no_grad;
        return features(teacher, real, sigma, condition);
      }();
      return judge(known, sigma, condition);
    }();
    const Tensor learned = hinge_loss(true_logits, false_logits);
    expect_finite_discriminator(learned, training.step);
    figures_ = {{"generator", generator.item<double>()},
                {"heads", learned.item<double>()},
                {"verdict_real", true_logits.mean().item<double>()},
                {"verdict_fake", false_logits.mean().item<double>()}};
    return with_gradient(generator, image, gradient) + learned;
  }

 private:
  std::vector<Tensor> features(const OtherModel& teacher, const Tensor& x, double sigma, const Condition& condition) const {
    Record seen(judged_blocks(o_.blocks, teacher.tap_points));
    teacher.tapped(seen.taps)->denoise(x, sigma, condition);
    return std::move(seen.outputs);
  }
  Tensor judge(const std::vector<Tensor>& features, double sigma, const Condition& condition) const {
    const Tensor level = at::full({features.front().size(0)}, std::log(sigma) / 4, at::TensorOptions().dtype(at::kFloat));
    const Tensor known = interval_features(level, o_.width).to(features.front().device());
    return (*heads_)(features, known, condition.classes, o_.blocks);
  }

  LaddOptions o_;
  nn::Builder build_;
  std::unique_ptr<nn::FeatureHeads> heads_;
  mutable std::vector<std::pair<std::string, double>> figures_;
};

class Ladd final : public JointObjective {
 public:
  using Options = LaddOptions;
  explicit Ladd(const Options& o) : o_(o) {}
  std::unique_ptr<OpenObjective> open(const Context& context) const override { return std::make_unique<OpenLadd>(o_, context); }
  void check(const Requirements&) const override { expect_teacher(o_.teacher); }

 private:
  Options o_;
};

}  // namespace

void register_objective_ladd(Registry& r) {
  r.add<Objective, Ladd>("ladd", "latent adversarial distillation: a few-step generator against heads on the teacher's features");
}

}  // namespace brume::plugins
