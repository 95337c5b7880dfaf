#pragma once
// What a classifier makes of a set of images.
#include <functional>
#include <vector>

#include "brume/diffusion/classifier_pipeline.h"
#include "brume/distributed/world.h"

namespace brume {

/// How often, and how surely, a classifier gives the wanted class.
struct ClassScores {
  int64_t images = 0, right = 0;
  double loss = 0;  ///< sum of the cross-entropies

  /// Adds a batch. logits: [B, classes]; labels: [B] int64.
  void add(const Tensor& logits, const Tensor& labels);
  double accuracy() const { return images > 0 ? double(right) / double(images) : 0; }
  double mean_loss() const { return images > 0 ? loss / double(images) : 0; }
};

/// Receives images [B, C, H, W] and their annotations; returns false to stop.
using TakeBatch = std::function<bool(const Tensor&, const std::vector<Annotation>&)>;
/// Calls `take` with the images of a data set in their order, in batches: the first `limit` of them, or all. An endless set needs a limit.
void for_each_batch(const Dataset& data, const ImageShape& shape, int64_t batch, int64_t limit, const TakeBatch& take);
/// Calls it for the images whose numbers are in a range.
void for_each_batch(const Dataset& data, const ImageShape& shape, int64_t batch, const NumberRange& range, const TakeBatch& take);

/// Returns the number of a set's images, at most `limit`; 0 = no limit, which an endless set needs (std::logic_error).
int64_t count_of(const Dataset& data, int64_t limit);

}  // namespace brume
