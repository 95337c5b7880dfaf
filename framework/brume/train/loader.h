#pragma once
// Batches in a reproducible order, read ahead on other threads.
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "brume/core/buckets.h"
#include "brume/core/dataset.h"
#include "brume/core/tensor.h"

namespace brume {

/// An image that could not be read, of a set that leaves such images out (ImageFiles::skips_errors).
struct Unread {
  int64_t row, index;  ///< row in the batch, in which another image of the set replaces it; index in the set
  std::string error;
};

struct Batch {
  Tensor images;  ///< [B, C, H, W] float32 in [-1, 1], or the moments of as many if the set holds those
  std::vector<Annotation> annotations;
  bool encoded = false;  ///< moments
  std::vector<Unread> unread{};
  Tensor weights{};  ///< [B, 1, H, W] float32, factors of the error at the pixels; undefined = all are 1
};

/// An image of a set, and the draw it is read for (Dataset::read).
struct Pick {
  int64_t index;
  uint64_t draw = uint64_t(index);
};
/// Reads `count` images, `pick` of 0, 1, ... `shape`: of what the set holds, images or moments.
Batch read_batch(const Dataset& data, const ImageShape& shape, int64_t count, const std::function<Pick(int64_t)>& pick);

/// Reads `count` images from `first` on. Leaves those out that cannot be read, with a warning each, if the set leaves such images out.
Batch read_in_turn(const Dataset& data, const ImageShape& shape, int64_t first, int64_t count);

/// Rows `first` to `first + count` of each batch, which one of several processes computes.
struct BatchRows {
  int64_t first = 0, count = 0;
};

/// Draw number k of a finite set is entry k mod size of a permutation seeded by (seed, k div size); of an endless one, image k.
/// A set with buckets is drawn bucket by bucket: an epoch has the batches of each, the last of a bucket filled up from its beginning, in an
/// order that is seeded likewise. The order follows from (seed, step) alone, so that a training resumes in place. One batch is one task,
/// and as many are read at once as there are workers: they come out in their order, whatever the number.
class Loader {
 public:
  /// Starts to read. `shape`: of an image; sets of moments have a shape of their own. `workers` = 0 reads in place. `rows`: what next()
  /// returns of each batch; absent: all.
  Loader(std::shared_ptr<const Dataset> data, const ImageShape& shape, int64_t batch, uint64_t seed, int64_t first_step,
         int64_t workers = 1, std::optional<BatchRows> rows = {});
  ~Loader();
  /// Returns the next batch. Throws what went wrong while reading it. Warns of the first image that is enlarged to more than twice its
  /// size.
  Batch next();

 private:
  Batch read(int64_t step, const std::vector<int64_t>& indices) const;
  /// Returns the next batch.
  Batch take();
  std::vector<int64_t> indices(int64_t step);
  int64_t index(int64_t draw);
  /// Returns the images of a batch of one bucket.
  std::vector<int64_t> of_bucket(int64_t step);
  /// Makes the batches of an epoch.
  void plan(int64_t epoch);
  /// Returns a permutation of `count` numbers that follows from the seed, the epoch and `stream`.
  std::vector<int64_t> permutation(size_t count, uint64_t stream) const;
  void read_ahead();

  std::shared_ptr<const Dataset> data_;
  ImageShape shape_;
  int64_t batch_;
  BatchRows rows_;
  uint64_t seed_;
  int64_t step_;  ///< of the next batch to be begun
  size_t workers_;
  int64_t epoch_ = -1;
  std::vector<int64_t> order_;
  const Buckets* buckets_;                       ///< null: all images have one shape
  std::vector<std::vector<int64_t>> images_of_;  ///< by bucket
  std::vector<std::vector<int64_t>> batches_;    ///< of the epoch
  std::deque<std::future<Batch>> ahead_;
  bool enlarged_ = false;  ///< was warned of
};

}  // namespace brume
