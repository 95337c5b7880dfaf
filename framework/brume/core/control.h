#pragma once
// Images that steer a network block by block while sampling: ControlNet.
//
// How to write one:
//   1. Derive a final class from Control with a nested `Options` (ControlSettings and its own fields, `declare(Fields&)`), made from those.
//   2. Derive an OpenControl that holds the weights; `open()` reads the file, refuses what does not fit the model and returns it.
//   3. `encode()` turns images into the tensors that calls receive, one row per image.
//   4. `add_to()` adds to the taps of one call what the rows of the condition give. Treat each image alone; keep nothing between calls.
//   5. Put it into plugins/controls/NAME.cpp, which ends with `register_control_NAME`.
//   6. Read plugins/controls/controlnet.cpp as an example. See docs/control.md.
//   7. Run test_parity --gtest_filter='*Control*' (tests/parity/controlnet_test.cpp).
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/fields.h"
#include "brume/core/network.h"

namespace brume {

/// What every control has.
struct ControlSettings {
  std::string file;         ///< the weights
  std::string image;        ///< FILE, or PREPROCESSOR:FILE
  std::string mask;         ///< FILE, where the control counts (white); "" = everywhere
  double scale = 1;         ///< 0 = as without it, bit for bit
  double from = 0, to = 1;  ///< share of the steps in which it counts
  void declare(Fields& f);
};

/// The model that a control steers.
struct ControlledModel {
  const Network& network;     ///< lives as long as what open() returns
  ImageShape latent{};        ///< of one x
  int64_t context_width = 0;  ///< of the tokens of the model's condition; 0 = none
  int64_t ratio = 8;          ///< pixels per side of one place of x
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;  ///< that it computes in
};

/// One call of the network.
struct ControlledCall {
  const Tensor& input;  ///< [B, C, H, W], as for Network::forward
  const Tensor& c_noise;
  const Condition& condition;
  const std::vector<Tensor>& control;  ///< what encode() made of the images, a row per row of the input
  const Tensor& mask;                  ///< [B, 1, H, W] in [0, 1]; undefined = everywhere
  double scale = 1;
  /// Returns a residual [B, C, h, w] times the scale, and times the mean of the mask over each of its places.
  Tensor weighed(const Tensor& residual) const;
};

/// A control with its weights. `const` and safe to call from several threads at once.
class OpenControl {
 public:
  virtual ~OpenControl() = default;
  /// Returns what calls receive of images [B, 3, H, W] in [0, 1] of the size of the images that are made, one row per image in each
  /// tensor. Throws ConfigError if they do not fit.
  virtual std::vector<Tensor> encode(const Tensor& images) const = 0;
  /// Adds to `taps` what this control adds to one call.
  virtual void add_to(Taps& taps, const ControlledCall& call) const = 0;
  /// Returns true if unconditional estimates are made without the control.
  virtual bool conditional_only() const { return false; }
};

/// A value, made while the configuration is read.
class Control {
 public:
  static constexpr std::string_view kind = "control";
  virtual ~Control() = default;
  virtual const ControlSettings& settings() const = 0;
  /// Returns the control with the weights of its file. Throws ConfigError if the file is none of a control of this kind, or of another
  /// generation of models, naming both.
  virtual std::shared_ptr<const OpenControl> open(const ControlledModel& model) const = 0;
};

/// Adds `residual` to what is added at `name` already.
void add_residual(std::map<std::string, Tensor, std::less<>>& residuals, const std::string& name, const Tensor& residual);

}  // namespace brume
