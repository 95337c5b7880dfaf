#pragma once
// A ControlNet with its weights (Zhang et al. 2023, "Adding conditional control to text-to-image diffusion models", eq. 2): what a
// ControlBranch computes of an image is added to the skip connections and to the middle block.
#include <memory>
#include <string>
#include <vector>

#include "brume/core/control.h"
#include "brume/core/control_branch.h"

namespace brume::nn {

class BranchControl final : public OpenControl {
 public:
  /// Makes a control of a branch. `source` names it in messages.
  BranchControl(std::string source, std::shared_ptr<const ControlBranch> branch, const ControlBranchOptions& options);
  std::vector<Tensor> encode(const Tensor& images) const override;
  void add_to(Taps& taps, const ControlledCall& call) const override;
  /// Returns true if the residuals are averaged over height and width, as the pipelines of diffusers have it.
  bool conditional_only() const override { return global_pool_; }

 private:
  std::string source_;
  std::shared_ptr<const ControlBranch> branch_;
  int64_t channels_, factor_;
  bool blue_first_, global_pool_;
  std::vector<std::string> places_;
};

/// Returns how many pixels of a hint, per side, become one place of x: 2^(widths - 1).
int64_t hint_factor(const ControlBranchOptions& options);

}  // namespace brume::nn
