#pragma once
// Discriminators of a network's features: one small head per block.
#include <string>
#include <vector>

#include "brume/nn/blocks/layers.h"

namespace brume::nn {

/// Judges each token (or pixel) of each block by two layers that know the noise level, and by the class's row of a table (Miyato & Koyama
/// 2018, "cGANs with Projection Discriminator", eq. 3).
class FeatureHeads {
 public:
  /// `channels`: of each block's features; `width`: of the hidden layers; `classes`: rows of the table; 0 = none.
  FeatureHeads(const Builder& build, const std::vector<int64_t>& channels, int64_t width, int64_t classes);
  /// Returns the logits of all blocks, [B, L] float32. features: [B, C, H, W] or [B, N, C] per block, of any dtype; level: [B, width]
  /// float32, features of the noise level; classes: [B] int64, or undefined without a table. Throws ConfigError if features have other
  /// channels; `names`: of their blocks.
  Tensor operator()(const std::vector<Tensor>& features, const Tensor& level, const Tensor& classes,
                    const std::vector<std::string>& names) const;

 private:
  struct Head {
    int64_t channels;
    LayerNorm norm;
    Linear in, level, hidden, out;
    Embedding classes{};
  };
  Tensor judge(const Head& head, const Tensor& tokens, const Tensor& level, const Tensor& classes) const;

  int64_t width_;
  std::vector<Head> heads_;
};

/// Returns features as tokens, [B, N, C] float32. features: [B, C, H, W] or [B, N, C].
Tensor feature_tokens(const Tensor& features);

}  // namespace brume::nn
