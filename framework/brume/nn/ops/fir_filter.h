#pragma once
// A separable low-pass filter between one resolution and half of it (Karras et al. 2022, app. F; [1, 1] is averaging and
// repeating, [1, 3, 3, 1] is what NCSN++ has).
#include <cstdint>
#include <vector>

#include "brume/core/tensor.h"

namespace brume::nn {

class Filter {
 public:
  /// Makes a filter. `taps`: an even number of them, symmetric or not; they are scaled to sum to 1.
  explicit Filter(std::vector<double> taps = {1, 1});
  /// Maps [B, C, H, W] to [B, C, 2H, 2W]: zeros are laid between the pixels, and the taps doubled.
  Tensor up(const Tensor& x) const;
  /// Maps [B, C, H, W] to [B, C, H/2, W/2], with zeros around the image.
  Tensor down(const Tensor& x) const;
  /// Returns the same without zeros around: x has a border of margin() pixels already.
  Tensor down_within(const Tensor& x) const;
  /// Returns the number of pixels that the filter reaches beyond the image.
  int64_t margin() const { return (int64_t(taps_.size()) - 1) / 2; }

 private:
  bool averages() const { return taps_.size() == 2 && taps_[0] == taps_[1]; }
  std::vector<double> taps_;
};

}  // namespace brume::nn
