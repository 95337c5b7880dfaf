#pragma once
// What a classifier makes of a set of images.
#include <functional>
#include <vector>

#include "brume/diffusion/classifier_pipeline.h"

namespace brume {

/// How often, and how surely, a classifier gives the wanted class.
struct ClassScores {
  int64_t images = 0, right = 0;
  double loss = 0;  ///< sum of the cross-entropies

  /// logits: [B, classes]; labels: [B] int64.
  void add(const Tensor& logits, const Tensor& labels);
  double accuracy() const { return images > 0 ? double(right) / double(images) : 0; }
  double mean_loss() const { return images > 0 ? loss / double(images) : 0; }
};

/// Images of a data set as they lie there, in batches: the first `limit` of them, or all. An endless set needs a limit. Stops if
/// `take` (images [B, C, H, W], their annotations) returns false.
void for_each_batch(const Dataset& data, const ImageShape& shape, int64_t batch, int64_t limit,
                    const std::function<bool(const Tensor&, const std::vector<Annotation>&)>& take);

}  // namespace brume
