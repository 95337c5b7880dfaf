#include "brume/nn/blocks/branch_control.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/mean.h>
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/errors.h"

namespace brume::nn {

int64_t hint_factor(const ControlBranchOptions& options) { return int64_t(1) << (options.hint_widths.size() - 1); }

BranchControl::BranchControl(std::string source, std::shared_ptr<const ControlBranch> branch, const ControlBranchOptions& options)
    : source_(std::move(source)),
      branch_(std::move(branch)),
      channels_(options.hint_channels),
      factor_(hint_factor(options)),
      blue_first_(options.blue_first),
      global_pool_(options.global_pool),
      places_(branch_->places()) {}

std::vector<Tensor> BranchControl::encode(const Tensor& images) const {
  if (channels_ != 1 && channels_ != 3)
    throw ConfigError(fmt::format("{}: takes images of {}, and an image file has 1 or 3", source_, counted(channels_, "channel")));
  if (channels_ == 1) return {images.mean(at::IntArrayRef({1}), true)};
  return {blue_first_ ? images.flip(1) : images};
}

void BranchControl::add_to(Taps& taps, const ControlledCall& call) const {
  const Tensor& hint = call.control.front();
  if (hint.size(2) != factor_ * call.input.size(2) || hint.size(3) != factor_ * call.input.size(3))
    throw ConfigError(fmt::format("{}: takes images of {}x{} for these latents, and the image is {}x{}", source_,
                                  factor_ * call.input.size(3), factor_ * call.input.size(2), hint.size(3), hint.size(2)));
  const std::vector<Tensor> residuals = branch_->residuals(call.input, call.c_noise, call.condition, hint.to(call.input.device()), nullptr);
  for (size_t i = 0; i < residuals.size(); ++i)
    add_residual(i + 1 < residuals.size() ? taps.skip_residuals : taps.residuals, places_[i], call.weighed(residuals[i]));
}

}  // namespace brume::nn
