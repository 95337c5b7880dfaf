#pragma once
// The Inception score (Salimans et al. 2016, "Improved techniques for training GANs", section 4).
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace brume {

struct InceptionScore {
  double mean = 0, std = 0;  ///< over splits; population standard deviation
};

/// Returns exp(mean_i KL(p(y|x_i) || p(y))) in each split, p(y) being the mean of the split. logits: [N, classes]; computed in float64.
/// `bounds`: the first row of each split, then N. Throws std::invalid_argument if a split is empty.
InceptionScore inception_score(const at::Tensor& logits, const std::vector<int64_t>& bounds);

/// Returns the bounds of `splits` splits of nearly the same size: split i begins at row floor(i N / splits).
std::vector<int64_t> equal_splits(int64_t rows, int64_t splits);
/// Returns the bounds of splits of `size` rows, the last of which may be shorter.
std::vector<int64_t> splits_of_size(int64_t rows, int64_t size);

}  // namespace brume
