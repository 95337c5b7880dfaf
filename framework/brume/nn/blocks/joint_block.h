#pragma once
// Blocks of the multimodal diffusion transformer (Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image
// Synthesis", fig. 2): words and patches have weights of their own and attend together. With the dual attention of Stable Diffusion 3.5,
// and FLUX's blocks of one stream, whose attention and perceptron stand side by side. Weights are named as in Stability's MMDiT.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "brume/nn/blocks/dit.h"

namespace brume::nn {

struct JointOptions {
  int64_t width = 128, heads = 2;
  double mlp_ratio = 4, eps = 1e-6;
  bool qk_norm = false;  ///< RMS norm of queries and keys, head by head
  int64_t mlp_width() const { return int64_t(double(width) * mlp_ratio); }
};

/// What every block receives besides its input.
struct JointState {
  Tensor embedding;                     ///< [B, C], after its SiLU
  Tensor mask{};                        ///< [B, L + N], of words and patches; undefined = all are seen
  const RotaryTable* rotary = nullptr;  ///< of the patches; null = none. Words are not rotated
  const Taps* taps = nullptr;
};

/// Queries, keys and values, [B, heads, N, d].
struct Qkv {
  Tensor q, k, v;
};

/// The attention's layers of one stream.
class StreamAttention {
 public:
  /// Makes a stream's part of the attention. `projects`: it has a layer after the attention.
  StreamAttention(const Builder& build, const JointOptions& o, bool projects);
  const std::string& name() const { return name_; }
  Qkv operator()(const Tensor& x, const RotaryTable* rotary) const;
  Tensor project(const Tensor& x) const { return out_(x); }

 private:
  std::string name_;
  int64_t heads_;
  Linear qkv_, out_;
  std::optional<TokenNorm> q_norm_, k_norm_;
};

/// Words or patches within a joint block.
class Stream {
 public:
  /// Makes a stream. `ends`: nothing comes after its keys and values, as of the words of the last block; `dual`: it attends to itself as
  /// well.
  Stream(const Builder& build, const JointOptions& o, bool ends, bool dual);
  bool ends() const { return ends_; }
  std::vector<Tensor> modulation(const Tensor& embedding) const;
  Qkv qkv(const Tensor& x, const std::vector<Tensor>& modulation, const RotaryTable* rotary) const;
  /// Returns the stream after its attention, `attended`, [B, N, C].
  Tensor finish(const Tensor& x, const Tensor& attended, const std::vector<Tensor>& modulation, const JointState& state) const;
  void add_to(TapPoints& points) const;

 private:
  bool ends_;
  double eps_;
  Linear modulation_, wide_, narrow_;
  StreamAttention attention_;
  std::optional<StreamAttention> own_;
  TokenNorm norm_;
};

/// A block of two streams, or of the patches alone.
class JointBlock {
 public:
  /// Makes a block. `words`: there are some; `last`: those end here; `dual`: patches attend to themselves as well.
  JointBlock(const Builder& build, const JointOptions& o, bool words, bool last, bool dual);
  /// Replaces both; `words` is undefined after the last block. words: [B, L, C], undefined = none; patches: [B, N, C].
  void operator()(Tensor& words, Tensor& patches, const JointState& state) const;
  void add_to(TapPoints& points) const;

 private:
  std::string name_;
  Stream patches_;
  std::optional<Stream> words_;
};

/// A block of words and patches in one stream (FLUX).
class SingleBlock {
 public:
  SingleBlock(const Builder& build, const JointOptions& o);
  /// Returns the shape of x, [B, L + N, C].
  Tensor operator()(const Tensor& x, const JointState& state) const;
  void add_to(TapPoints& points) const { points.attention.push_back(name_); }

 private:
  std::string name_;
  int64_t width_, heads_;
  Linear modulation_, wide_, narrow_;
  std::optional<TokenNorm> q_norm_, k_norm_;
  TokenNorm norm_;
};

/// Returns the last tokens of q or k, one per row of the table, rotated; those in front of them as they are. x: [B, heads, N, d].
Tensor rotated(const Tensor& x, const RotaryTable* rotary);

}  // namespace brume::nn
