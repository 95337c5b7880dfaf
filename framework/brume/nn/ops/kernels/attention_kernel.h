#pragma once
// One head of softmax(q k^T scale) v for inference, on plain memory. No torch: the files that include this are compiled for their
// own instruction set.
#include <cstdint>

namespace brume::nn::kernels {

/// Rows of d values, contiguous within a row.
struct Rows {
  const void* data;
  int64_t stride;  ///< elements from one row to the next
};

struct AttentionHead {
  Rows q, k, v;
  void* out;
  int64_t out_stride;
  int64_t queries, keys, width;
  float scale;        ///< 1 / sqrt(width)
  const float* seen;  ///< a key each, 0 = not seen; null = all are
  int64_t position;   ///< of the first query, which sees the keys up to its own; negative = queries see all keys
  float* scratch;     ///< attention_scratch(keys, width) floats
};

/// Queries that a call may have, a multiple of 8.
inline constexpr int64_t attention_queries = 512;

/// Enough for each of the kernels.
inline int64_t attention_scratch(int64_t keys, int64_t width) {
  const int64_t wide = (width + 31) / 32 * 32;  // all kernels take 256 keys at a time
  return attention_queries * (2 * wide + 32) + 512 * (wide + 32) + keys + 256;
}

/// Float32 sums; the result depends on the head alone. `bf16`: the elements are bfloat16, else float.
void attention_generic(const AttentionHead& head, bool bf16);
void attention_avx2(const AttentionHead& head, bool bf16);
void attention_avx512(const AttentionHead& head, bool bf16);
/// Of bfloat16 alone; weights are rounded to it before they are multiplied with values.
void attention_avx512bf16(const AttentionHead& head);
void attention_amx(const AttentionHead& head);

}  // namespace brume::nn::kernels
