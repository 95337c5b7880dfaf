#pragma once
// The spatial transformer of latent diffusion (Rombach et al. 2022, sec. 3.3 and app. E.2.1): the pixels of a feature map are tokens
// that attend to each other and to the tokens of the condition. Weights are named as in CompVis' SpatialTransformer.
//
//   z = proj_in(norm(x));  depth times:  z += attn1(norm1(z));  z += attn2(norm2(z), context);  z += ff(norm3(z));
//   out = x + proj_out(z)
#include <vector>

#include "brume/core/taps.h"
#include "brume/nn/blocks/layers.h"

namespace brume::nn {

/// What the network attends to.
struct Tokens {
  Tensor values{};  ///< [B, L, D]; undefined = none
  Tensor mask{};    ///< [B, L], 1 = a token, 0 = padding; undefined = all are tokens
};

/// Attention of several heads between two sequences (Vaswani et al. 2017, sec. 3.2.2).
class CrossAttention {
 public:
  /// Queries of width `channels`, keys and values of width `context`.
  CrossAttention(const Builder& build, int64_t channels, int64_t context, int64_t heads);
  /// Returns sum + dropout(attention of x to `tokens`), [B, N, C]; to x itself if `tokens` are undefined. x: [B, N, C].
  Tensor onto(Tensor sum, const Tensor& x, const Tokens& tokens, double dropout, at::Generator* random, const Taps* taps) const;

 private:
  std::string name_;
  int64_t heads_;
  Linear q_, k_, v_, out_;
};

class TransformerBlock {
 public:
  /// Makes a block. `context`: width of the tokens; 0 = none, both attentions are of x to itself. `only_cross`: both are to the tokens.
  TransformerBlock(const Builder& build, int64_t channels, int64_t context, int64_t heads, double dropout, bool only_cross = false);
  /// Returns the shape of x, [B, N, C].
  Tensor operator()(Tensor x, const Tokens& tokens, at::Generator* dropout, const Taps* taps) const;
  const std::string& name() const { return name_; }
  void add_to(TapPoints& points) const;

 private:
  std::string name_;
  double dropout_;
  bool only_cross_;
  CrossAttention self_, cross_;
  Linear wide_, narrow_;  ///< feed-forward with GEGLU (Shazeer 2020)
  LayerNorm norms_[3];
};

/// How the channels are projected on the way in and out: a 1x1 convolution (SD 1), or a linear layer (SD 2).
enum class Projection { conv, linear };

struct TransformerOptions {
  int64_t channels = 0, context = 0, heads = 1, depth = 1, groups = 32;
  Projection projection = Projection::conv;
  double dropout = 0;
  bool zero_init = true;
  bool only_cross = false;  ///< the first attention of each block is to the tokens, too; needs a context
};

class SpatialTransformer {
 public:
  SpatialTransformer(const Builder& build, const TransformerOptions& options);
  /// Returns the shape of x, [B, C, H, W]. Ignores `tokens` if it has no context width. `taps`: null = none.
  Tensor operator()(Tensor x, const Tokens& tokens, at::Generator* dropout, const Taps* taps = nullptr) const;
  /// Adds the names within it, not its own.
  void add_to(TapPoints& points) const;

 private:
  bool attends_;  ///< to tokens
  GroupNorm norm_;
  Conv2d conv_in_, conv_out_;
  Linear linear_in_, linear_out_;
  std::vector<TransformerBlock> blocks_;
};

}  // namespace brume::nn
