#pragma once
// Batches in a reproducible order, read ahead on another thread.
#include <future>
#include <memory>
#include <vector>

#include "core/dataset.h"
#include "core/tensor.h"

namespace brume {

struct Batch {
  Tensor images;  ///< [B, C, H, W] float32 in [-1, 1], or the moments of as many where the set holds those
  std::vector<Annotation> annotations;
  bool encoded = false;  ///< moments
};

/// Draw number k of a finite set is entry k mod size of a permutation seeded by (seed, k div size); of an endless one, image k.
/// The order follows from (seed, step) alone, so that a training resumes in place.
class Loader {
 public:
  /// `shape`: of an image; sets of moments have a shape of their own.
  Loader(std::shared_ptr<const Dataset> data, const ImageShape& shape, int64_t batch, uint64_t seed, int64_t first_step);
  ~Loader();
  Batch next();

 private:
  Batch read(int64_t step);
  int64_t index(int64_t draw);
  std::shared_ptr<const Dataset> data_;
  ImageShape shape_;
  int64_t batch_;
  uint64_t seed_;
  int64_t step_;
  int64_t epoch_ = -1;
  std::vector<int64_t> order_;
  std::future<Batch> ahead_;
};

}  // namespace brume
