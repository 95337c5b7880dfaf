#pragma once
// A transformer over the tokens of a prompt (Vaswani et al. 2017) with the norms first (pre-LN; Radford et al. 2021, CLIP). Its weights
// are named as in the published CLIP files.
#include <vector>

#include "brume/nn/blocks/layers.h"
#include "brume/nn/ops/ops.h"

namespace brume::nn {

struct TextEncoderOptions {
  int64_t rows = 0;    ///< tokens there are
  int64_t length = 0;  ///< tokens of a prompt
  int64_t width = 0, depth = 0, heads = 1, mlp = 0;
  bool quick_gelu = false;  ///< x sigmoid(1.702 x) instead of gelu
  bool checkpoint = false;  ///< in training, its layers are computed again in the backward pass
};

/// What is read from an encoder.
struct TextReading {
  int64_t skip = 0;        ///< last layers that the tokens do not go through
  bool final_norm = true;  ///< the tokens go through the final norm
  bool whole = false;      ///< EncodedText::last as well
  Tensor more{};           ///< [n, width], the embeddings of tokens rows, rows + 1, …
};
struct EncodedText {
  Tensor tokens;  ///< [B, length, width]
  Tensor last{};  ///< [B, length, width], after all layers and the final norm
};

///   h = token[ids] + position;   h += attention(norm h);  h += mlp(norm h), `depth` times;   norm h
class TextEncoder {
 public:
  TextEncoder(const Builder& build, const TextEncoderOptions& options);
  /// Encodes ids, [B, length] int64, in `dtype`.
  EncodedText operator()(const Tensor& ids, const AttentionMask& mask, at::ScalarType dtype, const TextReading& reading) const;
  /// Returns the tokens after all layers and the final norm, [B, length, width].
  Tensor operator()(const Tensor& ids, const AttentionMask& mask, at::ScalarType dtype) const {
    return (*this)(ids, mask, dtype, TextReading{}).tokens;
  }

 private:
  struct Layer {
    LayerNorm norm1, norm2;
    Linear q, k, v, out, up, down;
  };
  Tensor embedded(const Tensor& ids, const Tensor& more) const;
  /// Returns sum + attention(norm(sum)).
  Tensor attend(const Layer& layer, Tensor sum, const AttentionMask& mask) const;
  Tensor through(const Layer& layer, Tensor h, const AttentionMask& mask) const;

  TextEncoderOptions o_;
  Embedding tokens_, positions_;
  std::vector<Layer> layers_;
  LayerNorm norm_;
};

}  // namespace brume::nn
