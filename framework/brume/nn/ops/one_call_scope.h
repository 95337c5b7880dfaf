#pragma once
// Networks that are called once per image.

namespace brume::nn {

/// While one lives, what its thread computes keeps no packed copies of large weights: for encoders of prompts and of images that steer,
/// which are idle while the network is called step by step.
class OneCallScope {
 public:
  OneCallScope();
  ~OneCallScope();
  OneCallScope(const OneCallScope&) = delete;
  OneCallScope& operator=(const OneCallScope&) = delete;

  /// Returns true if one lives in this thread.
  static bool active();
};

}  // namespace brume::nn
