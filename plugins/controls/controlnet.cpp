// ControlNet (Zhang et al. 2023, "Adding conditional control to text-to-image diffusion models", eq. 2): a copy of the U-Net's encoder
// sees the image and adds to the skip connections and to the middle block.
//
//   skip_i += scale zero_i(copy_i(x, hint));  middle += scale zero(copy_middle(x, hint))
//
// Reads the directories of diffusers, single files of CompVis (`control_model.` and bare names) and control-LoRAs, for SD 1, SD 2 and SDXL.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "brume/config/registry.h"
#include "brume/core/control.h"
#include "brume/core/control_branch.h"
#include "brume/interop/control_file.h"
#include "brume/nn/blocks/branch_control.h"
#include "brume/nn/blocks/layers.h"
#include "brume/weights/model_weights.h"

namespace brume::plugins {
namespace {

/// A projection that one program keeps as a linear layer and the other as a 1x1 convolution.
void reshape_as_weight(NamedTensor& t, const std::vector<Weight>& weights) {
  for (const Weight& w : weights)
    if (w.name == t.name && w.tensor.dim() != t.tensor.dim() && w.tensor.numel() == t.tensor.numel() &&
        t.name.find(".proj_") != t.name.npos)
      t.tensor = t.tensor.reshape(w.tensor.sizes());
}

std::shared_ptr<const OpenControl> opened(const ControlSettings& settings, const ControlledModel& model) {
  const auto* copied = dynamic_cast<const HasControlBranch*>(&model.network);
  if (!copied) throw ConfigError(fmt::format("{}: the model's network takes no ControlNet; a unet does", settings.file));
  ControlNetFile file = read_controlnet(settings.file, model.network.weights(), model.context_width);
  if (nn::hint_factor(file.options) != model.ratio)
    throw ConfigError(fmt::format("{}: halves its image {} times, and the model's latents are {} times smaller than images", file.source,
                                  file.options.hint_widths.size() - 1, model.ratio));
  const nn::SkipInit follow;
  const std::shared_ptr<ControlBranch> branch = copied->control_branch(file.options);
  const at::NoGradGuard no_grad;
  const std::vector<Weight> weights = branch->weights();
  for (NamedTensor& t : file.tensors) reshape_as_weight(t, weights);
  load_weights(file.source, file.tensors, weights);
  for (const Weight& w : weights) Tensor(w.tensor).set_data(w.tensor.to(model.device, w.trainable ? model.dtype : w.tensor.scalar_type()));
  return std::make_shared<nn::BranchControl>(file.source, branch, file.options);
}

class ControlNet final : public Control {
 public:
  struct Options : ControlSettings {};
  explicit ControlNet(const Options& o) : o_(o) {}
  const ControlSettings& settings() const override { return o_; }
  std::shared_ptr<const OpenControl> open(const ControlledModel& model) const override { return opened(o_, model); }

 private:
  Options o_;
};

}  // namespace

void register_control_controlnet(Registry& r) {
  r.add<Control, ControlNet>("controlnet", "a copy of the U-Net's encoder that sees an image (ControlNet, control-LoRA)");
}

}  // namespace brume::plugins
