#pragma once
// How far images obey what steers them.
#include <string>

#include "brume/core/tensor.h"

namespace brume {

/// Sums over images.
class ControlAgreement {
 public:
  /// Begins without images. `preprocessor`: what made the hints (image/control_image.h).
  explicit ControlAgreement(std::string preprocessor) : preprocessor_(std::move(preprocessor)) {}
  /// Adds a batch. images: [B, 1 or 3, H, W] in [-1, 1], compared as 8-bit pictures would hold them; hints: [B, 3, H, W] in [0, 1], what
  /// they were to have.
  void add(const Tensor& images, const Tensor& hints);
  int64_t images() const { return images_; }
  /// Returns the mean absolute difference of the hints and what the preprocessor makes of the images.
  double error() const;
  /// Returns the mean over the images of |A and B| / |A or B|, of the white pixels A and B of the two (intersection over union, Jaccard
  /// 1901); 1 if both have none. NaN if the preprocessor does not draw white lines on black.
  double overlap() const;

 private:
  std::string preprocessor_;
  int64_t images_ = 0;
  double errors_ = 0, overlaps_ = 0;
};

}  // namespace brume
