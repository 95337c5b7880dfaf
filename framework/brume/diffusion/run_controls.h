#pragma once
// The controls of a run (sample.control): their weights, their images, and the steps in which they count.
#include <memory>
#include <vector>

#include "brume/core/control.h"
#include "brume/diffusion/pipeline.h"

namespace brume {

/// What a run makes.
struct ControlledRun {
  ImageShape image, latent;
  const Tensor& mask;    ///< [1 or count, 1, H, W] in [0, 1], 1 = to generate; undefined = none
  const Tensor& source;  ///< SampleRequest::control_source
  int64_t count = 0;     ///< of images
  const std::vector<double>& sigmas;
};

/// A row of a condition says by Condition::plan which image it is of: n, or -1 - n in the null condition.
class RunControls {
 public:
  /// Opens the controls that have a strength and reads their images. Throws ConfigError.
  RunControls(const Pipeline& model, const std::vector<std::shared_ptr<const Control>>& controls, const ControlledRun& run);
  /// Numbers the rows of a batch's condition, images [first, first + rows). Throws ConfigError if they have numbers of another kind.
  void number_rows(Condition& condition, int64_t first, int64_t rows) const;
  /// Returns what makes the taps of each call; empty if no control has a strength. It lives as long as this object.
  CallTaps taps() const;

 private:
  struct Entry {
    ControlSettings settings;
    std::shared_ptr<const OpenControl> control;
    std::vector<Tensor> encoded;
    Tensor mask;                     ///< [1, 1, H, W]; undefined = everywhere
    double highest = 0, lowest = 0;  ///< counts at lowest < sigma <= highest
    bool prompt = false;             ///< the last row of `encoded` is that of no image, for unconditional estimates
    bool counts_at(double sigma) const { return lowest < sigma && sigma <= highest; }
  };

  std::vector<Entry> entries_;
};

}  // namespace brume
