// ControlNet (Zhang et al. 2023, "Adding conditional control to text-to-image diffusion models", sec. 3): the model is locked, a copy of
// its encoder with zero convolutions learns to steer it by
//
//   E |eps - F(x + sigma eps, c_noise, c, control(x + sigma eps, c_noise, c, hint))|^2
//
// or another objective, with the hint that a preprocessor makes of the training image.
#include "brume/train/controlled_learner.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/counted.h"
#include "brume/core/control_branch.h"
#include "brume/diffusion/pipeline.h"
#include "brume/nn/blocks/branch_control.h"
#include "brume/train/base_hash.h"
#include "brume/weights/model_hash.h"
#include "brume/weights/model_metadata.h"
#include "brume/weights/safetensors.h"

namespace brume {
namespace {

ConfigError refused(const std::string& message) { return ConfigError(message).located({}, "model.control"); }

/// Returns what is made for latents that are `ratio` times smaller than images.
ControlBranchOptions branch_options(const TrainedControlOptions& o, int64_t ratio, uint64_t seed) {
  constexpr int64_t papers[] = {16, 32, 96, 256};
  size_t halvings = 0;
  while ((int64_t(1) << halvings) < ratio) ++halvings;
  if ((int64_t(1) << halvings) != ratio)
    throw refused(fmt::format("its layers halve images, and the model's latents are {} times smaller than images", ratio));
  if (!o.widths.empty() && o.widths.size() != halvings + 1)
    throw refused(fmt::format("widths: {} halve images {} times, and the model's latents are {} times smaller; give {}",
                              counted(o.widths.size(), "layer"), o.widths.size() - 1, ratio, halvings + 1));
  ControlBranchOptions options{.hint_widths = o.widths, .seed = seed};
  for (size_t i = 0; o.widths.empty() && i <= halvings; ++i) options.hint_widths.push_back(papers[std::min<size_t>(i, 3)]);
  return options;
}

class ControlledLearner final : public Learner {
 public:
  ControlledLearner(std::unique_ptr<Learner> learner, const Config& config, const StoredModel& base, uint64_t seed)
      : learner_(std::move(learner)),
        train_(*config.train),
        image_(config.model.control->image),
        hash_(train_.from.string(), "control.base_hash", base) {
    if (learner_->modules().size() > 1)
      throw ConfigError("trains networks of its own, and model.control trains the control alone").located({}, "train.objective");
    const Pipeline& model = *learner_->pipeline();
    const auto* copied = dynamic_cast<const HasControlBranch*>(&model.network());
    if (!copied) throw refused("the model's network takes no ControlNet; a unet does");
    if (model.concat_image()) throw refused("the model is conditioned on images, which a ControlNet does not see");
    options_ = branch_options(*config.model.control, config.model.image.height / model.latent().height, seed);
    for (std::shared_ptr<ControlBranch>* branch : {&learning_, &averaged_}) {
      *branch = copied->control_branch(options_);
      copy_encoder(model.network().weights(), **branch);
      if (const at::Device device = model.compute().device; !device.is_cpu())
        for (const Weight& w : (*branch)->weights()) Tensor(w.tensor).set_data(w.tensor.to(device));
    }
    parameters_ = prefixed("control.", learning_->weights());
    steer(learning_);
  }

  std::vector<TrainedModule> modules() const override { return {model_module(parameters_, train_)}; }
  const Pipeline* pipeline() const override { return learner_->pipeline(); }
  Loss loss(const Batch& batch, int64_t step, at::Generator& random) override { return learner_->loss(batch, step, random); }
  bool needs_whole(int64_t step) const override { return learner_->needs_whole(step); }

  std::vector<Weight> state() const override {
    std::vector<Weight> all = learner_->state();
    all.push_back(hash_.state());
    return all;
  }
  void restored() override { hash_.check("the control of this training is"); }

  Metrics test(const std::vector<Weight>&, const std::function<bool()>&) override { return {}; }
  bool preview(const std::vector<Weight>& averaged, const std::filesystem::path& file) override {
    take(averaged);
    steer(averaged_);
    const bool made = learner_->preview(learner_->weights(), file);
    steer(learning_);
    return made;
  }
  void keep_base(const std::vector<Weight>&, const std::filesystem::path& folder) override {
    learner_->keep_base(learner_->weights(), folder);
  }
  ModelCard card(const std::vector<Weight>&) override { return learner_->card(learner_->weights()); }
  std::vector<Weight> stored(const std::vector<Weight>&) const override { return learner_->weights(); }

  void save_parts(const std::filesystem::path& directory, const std::vector<Weight>& averaged, int64_t step) const override {
    take(averaged);
    NamedTensors tensors;
    for (const Weight& w : averaged_->weights()) tensors.push_back({w.name, w.tensor.detach()});
    write_safetensors(
        (directory / control_file).string(), tensors,
        {{metadata_key::base_hash, hash_.text()}, {metadata_key::step, std::to_string(step)}, {metadata_key::control_image, image_}});
  }

 private:
  static void copy_encoder(const std::vector<Weight>& network, const ControlBranch& branch) {
    const at::NoGradGuard no_grad;
    for (const Weight& to : branch.weights())
      for (const Weight& from : network)
        if (from.name == to.name) Tensor(to.tensor).copy_(from.tensor);
  }

  void take(const std::vector<Weight>& averaged) const {
    const at::NoGradGuard no_grad;
    const std::vector<Weight> into = averaged_->weights();
    for (size_t i = 0; i < into.size(); ++i) Tensor(into[i].tensor).copy_(averaged[i].tensor);
  }

  void steer(const std::shared_ptr<ControlBranch>& branch) {
    learner_->steer({std::make_shared<nn::BranchControl>("model.control", branch, options_), image_});
  }

  std::unique_ptr<Learner> learner_;
  TrainOptions train_;
  std::string image_;
  BaseHash hash_;
  ControlBranchOptions options_;
  std::shared_ptr<ControlBranch> learning_, averaged_;
  std::vector<Weight> parameters_;
};

}  // namespace

std::unique_ptr<Learner> controlled(std::unique_ptr<Learner> learner, const Config& config, const StoredModel& base, uint64_t seed) {
  return std::make_unique<ControlledLearner>(std::move(learner), config, base, seed);
}

}  // namespace brume
