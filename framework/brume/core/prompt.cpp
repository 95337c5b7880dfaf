#include "brume/core/prompt.h"

#include <ATen/core/Tensor.h>

namespace brume {

Tensor vectors_for(const Word& word, size_t encoder, int64_t width) {
  std::vector<Tensor> all{word.vectors};
  all.insert(all.end(), word.others.begin(), word.others.end());
  if (encoder < all.size() && all[encoder].size(1) == width) return all[encoder];
  for (const Tensor& vectors : all)
    if (vectors.size(1) == width) return vectors;
  return {};
}

}  // namespace brume
