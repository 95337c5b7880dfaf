#pragma once
// The trainable copy of a network's encoder that ControlNet adds to it (Zhang et al. 2023, "Adding conditional control to text-to-image
// diffusion models", sec. 3.1 and 3.2).
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "brume/core/network.h"

namespace brume {

/// What the file of a control fixes.
struct ControlBranchOptions {
  int64_t hint_channels = 3;
  std::vector<int64_t> hint_widths{16, 32, 96, 256};  ///< channels of the hint's encoder; each but the first halves height and width
  std::vector<int64_t> depth{};                       ///< transformer blocks per level, 0 = none; empty = as the network has
  bool middle_attention = true;                       ///< as the network has, or none
  bool global_pool = false;                           ///< residuals are averaged over height and width
  bool blue_first = false;                            ///< the hint's colors are blue, green, red
  std::vector<int64_t> heads{};                       ///< of attention, per level; empty = as the network has
  std::optional<int64_t> groups{};                    ///< of normalization; this and the next: nothing = as the network has
  std::optional<double> norm_eps{};
  std::optional<std::vector<int64_t>> only_cross_attention{};  ///< levels whose blocks do not attend to the pixels
  std::optional<bool> pad_below{};                             ///< strided convolutions pad below and to the right alone
  std::optional<bool> sin_first{};                             ///< the embedding of the timestep has its sines first
  std::optional<int64_t> frequency_shift{};                    ///< its last frequency is 1 / max_period itself
  uint64_t seed = 0;                                           ///< of the initial weights
};

/// `const` and safe to call from several threads at once.
class ControlBranch {
 public:
  virtual ~ControlBranch() = default;
  /// Returns the residuals of the skip connections in the order of the forward pass, then that of the middle block. input, c_noise,
  /// condition, dropout: as for Network::forward. hint: [B, hint_channels, H, W], height and width 2^(widths - 1) times the input's.
  virtual std::vector<Tensor> residuals(const Tensor& input, const Tensor& c_noise, const Condition& condition, const Tensor& hint,
                                        at::Generator* dropout) const = 0;
  /// Returns the names under which taps take the residuals: skip connections, and the middle block last.
  virtual std::vector<std::string> places() const = 0;
  /// Returns every tensor; those that are copies of the network's have its names.
  virtual std::vector<Weight> weights() const = 0;
};

/// A network whose encoder can be copied; networks that can derive from it, too.
class HasControlBranch {
 public:
  virtual ~HasControlBranch() = default;
  /// Returns a new copy of the encoder, with initial weights of its own.
  virtual std::shared_ptr<ControlBranch> control_branch(const ControlBranchOptions& options) const = 0;
};

}  // namespace brume
