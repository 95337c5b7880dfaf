#pragma once
// Inception v3 as PyTorch programs run it, for comparison: contiguous tensors, convolution, batch normalisation and ReLU one after the
// other, on LibTorch's own operations.
#include <map>
#include <string>
#include <vector>

#include "brume/core/network.h"

namespace brume::tools {

class EagerInception {
 public:
  /// Takes the weights of the layers. weights: those of nn::InceptionV3::layout().
  explicit EagerInception(const std::vector<Weight>& weights);
  /// Returns [B, 2048]. images: [B, 3, 299, 299] in [-1, 1].
  Tensor operator()(const Tensor& images) const;

 private:
  Tensor conv(const std::string& name, const Tensor& x, int64_t stride = 1, int64_t high = 0, int64_t wide = 0) const;
  /// Returns the convolutions called prefix + each of `layers`, which keep the size, one after the other.
  Tensor chain(const std::string& prefix, Tensor x, const std::vector<std::string>& layers) const;
  Tensor block_a(const std::string& name, const Tensor& x) const;
  Tensor block_c(const std::string& name, const Tensor& x) const;
  Tensor block_e(const std::string& name, const Tensor& x, bool max_pool) const;

  std::map<std::string, Tensor> weights_;
};

}  // namespace brume::tools
