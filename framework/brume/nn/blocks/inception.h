#pragma once
// The Inception v3 network that FID is defined with: Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", in
// the version of TensorFlow's graph of 2015-12-05, which pytorch-fid and torch-fidelity have as PyTorch weights. It differs from
// torchvision's: average pools do not count the padding, the pool of the last block (Mixed_7c) takes the maximum, and there are 1,008
// classes.
#include <map>
#include <string>
#include <vector>

#include "brume/nn/blocks/layers.h"

namespace brume::nn {

/// An Inception v3 network in inference mode: batch normalisation (eps 0.001) is folded into the convolutions.
class InceptionV3 {
 public:
  static constexpr int64_t side = 299, width = 2048, classes = 1008, spatial_width = 17 * 17 * 7;

  struct Output {
    Tensor features;  ///< [B, dims]
    Tensor logits;    ///< [B, 1008] without bias; undefined if dims is not 2048
    Tensor spatial;   ///< [B, 2023], the first 7 channels of Mixed_6d.branch1x1 in the order H, W, C; undefined if dims is not 2048
  };

  /// Returns the tensors of a file of its weights, with their shapes: names of torchvision's layout.
  static std::vector<Weight> layout();
  /// Makes the network from the tensors of layout(), float32 with the values of a file, on the device on which it computes.
  explicit InceptionV3(const std::vector<Weight>& weights, at::Device device);

  /// Returns the features of images [B, 3, 299, 299] float32 in [-1, 1]. `dims`: 2048 (the last average), or the means over the positions
  /// of an earlier block as in pytorch-fid: 768 (Mixed_6e), 192 and 64 (after the second and the first max pool). The bits of an image's
  /// row do not depend on the batch.
  Output operator()(const Tensor& images, int64_t dims = width) const;

 private:
  Tensor conv(const std::string& name, const Tensor& x, int64_t stride = 1, bool valid = false) const;
  Tensor block_a(const std::string& name, const Tensor& x) const;
  Tensor block_b(const std::string& name, const Tensor& x) const;
  Tensor block_c(const std::string& name, const Tensor& x, Tensor* spatial = nullptr) const;
  Tensor block_d(const std::string& name, const Tensor& x) const;
  Tensor block_e(const std::string& name, const Tensor& x, bool max_pool) const;

  std::map<std::string, Conv2d> convs_;
  Linear fc_;
};

}  // namespace brume::nn
