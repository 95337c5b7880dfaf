#pragma once
// The encoder of T5 (Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", sec. 2.1).
// Weights are named as in transformers' T5EncoderModel.
//
//   h = token[ids];   depth times:  h += out softmax(q k^T + bias) v of rms_norm(h);   h += wo mlp(rms_norm(h))
//   rms_norm(h)
//   mlp(n) = gelu(wi_0 n) * wi_1 n (T5 1.1: Shazeer 2020) or relu(wi n) (T5)
//
// There is no division by sqrt(d); the bias depends on the head and on the distance of key and query, and all layers share it.
#include <cstdint>
#include <vector>

#include "brume/nn/blocks/layers.h"

namespace brume::nn {

enum class T5FeedForward { gated_gelu, relu };

struct T5Options {
  int64_t rows = 32128, width = 4096, depth = 24, heads = 64, head = 64, mlp = 10240;
  int64_t buckets = 32, max_distance = 128;  ///< of the distances
  double eps = 1e-6;
  T5FeedForward feed_forward = T5FeedForward::gated_gelu;
};

/// Returns the bucket of each distance of a key from a query, [queries, keys] int64: half of the buckets for keys that follow; within a
/// half the first half are single distances, the others grow logarithmically up to `max_distance` (the paper, sec. 2.1).
Tensor t5_buckets(int64_t queries, int64_t keys, int64_t buckets, int64_t max_distance);

class T5Encoder {
 public:
  T5Encoder(const Builder& build, const T5Options& options);
  /// Returns [B, L, width] in `dtype`, computed in it. ids: [B, L] int64; mask: [B, L], 1 = a token, 0 = hidden; undefined = all are seen.
  Tensor operator()(const Tensor& ids, const Tensor& mask, at::ScalarType dtype) const;

 private:
  struct Layer {
    Tensor norm1, q, k, v, out, norm2, gate, up, down;  ///< gate: undefined without one
  };
  Tensor feed_forward(const Layer& layer, const Tensor& x) const;
  /// Returns [1, heads, L, L] float32.
  Tensor position_bias(int64_t length) const;

  T5Options o_;
  Tensor tokens_, bias_, norm_;
  std::vector<Layer> layers_;
};

}  // namespace brume::nn
