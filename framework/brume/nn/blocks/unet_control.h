#pragma once
// ControlNet's copy of a U-Net's encoder (Zhang et al. 2023, "Adding conditional control to text-to-image diffusion models", fig. 3):
//
//   h = input_blocks[0](x) + hint_encoder(hint);  residual_0 = zero_0(h);  h = input_blocks[i](h);  residual_i = zero_i(h);
//   residual_middle = zero_middle(middle_block(h))
//
// Each zero is a 1x1 convolution that begins as zero. Weights are named as in CompVis' ControlNet, so that its state dicts load as they
// are.
#include <optional>

#include "brume/core/control_branch.h"
#include "brume/nn/blocks/unet.h"

namespace brume::nn {

class UnetControlBranch final : public ControlBranch {
 public:
  /// Makes the branch of a U-Net with these options and this context. Throws ConfigError if the control does not fit them.
  UnetControlBranch(const UnetOptions& options, const Network::Context& context, const ControlBranchOptions& control);
  std::vector<Tensor> residuals(const Tensor& input, const Tensor& c_noise, const Condition& condition, const Tensor& hint,
                                at::Generator* dropout) const override;
  std::vector<std::string> places() const override;
  std::vector<Weight> weights() const override { return build_.weights(); }

 private:
  Tensor embedding(const Tensor& c_noise, const Condition& condition, at::ScalarType dtype) const;
  Tensor encoded_hint(Tensor hint) const;

  bool global_pool_;
  int64_t context_ = 0;
  Builder build_;
  TimestepEmbedding time_embed_;
  std::optional<TimestepEmbedding> class_number_;
  Embedding label_;
  std::optional<VectorEmbedding> vector_;
  std::vector<Conv2d> hint_;
  UnetEncoder encoder_;
  std::vector<Stage> middle_;
  std::vector<Conv2d> zeros_;
  Conv2d zero_middle_;
};

}  // namespace brume::nn
