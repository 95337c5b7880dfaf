#pragma once
// Blocks of the diffusion transformer (Peebles & Xie 2023): patches of an image are tokens; attention and a multilayer perceptron whose
// norms are scaled, shifted and gated by the noise level and the class (adaLN-Zero). Weights are named as in DiT, those of tokens as in
// PixArt (Chen et al. 2024), those of SwiGLU and of the norms of queries and keys as in LightningDiT (Yao & Wang 2025).
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "brume/core/noise_embedding.h"
#include "brume/nn/blocks/layers.h"
#include "brume/nn/blocks/patches.h"
#include "brume/nn/blocks/transformer.h"

namespace brume::nn {

enum class Positions { sine, learned, none };
enum class Norm { layer, rms };
enum class MlpActivation { gelu, swiglu };
/// The six vectors of a block: a linear layer in each block (adaLN-Zero), or one for all and a table in each (adaLN-single).
enum class Modulation { zero, single };
/// Tokens of the condition: attended to by every block, or put in front of the patches.
enum class TokenUse { cross_attention, in_context };

struct DitOptions {
  int64_t patch = 2, width = 128, depth = 6, heads = 4, noise_width = 256;
  double mlp_ratio = 4, norm_eps = 1e-6, dropout = 0, position_scale = 1;
  std::optional<int64_t> patch_height;   ///< absent = patch, and 1 for signals
  int64_t slices = 1, patch_slices = 1;  ///< of a volume
  std::optional<double> mlp_norm_eps;    ///< of the norm before the multilayer perceptron; absent = norm_eps
  Positions positions = Positions::sine;
  bool rotary = false, qk_norm = false, long_skips = false, checkpoint = false;
  Norm norm = Norm::layer;
  MlpActivation activation = MlpActivation::gelu;
  Modulation modulation = Modulation::zero;
  TokenUse tokens = TokenUse::cross_attention;
  std::shared_ptr<const NoiseEmbedding> noise_embedding;

  void declare(Fields& f);
  /// Returns the size of a patch of images of this height.
  PatchSize patch_of(int64_t height) const { return {patch_height.value_or(height == 1 ? 1 : patch), patch, patch_slices}; }
  int64_t head() const { return width / heads; }  ///< channels of a head
  /// Returns the channels within the multilayer perceptron; two thirds of them for SwiGLU, whose first layer gives two halves.
  int64_t mlp_width() const;
};

/// Layer norm or RMS norm over the channels; without weights if it is given a scale and a shift afterwards and is a layer norm.
class TokenNorm {
 public:
  TokenNorm() = default;
  /// Makes a norm with weights: a scale, and for a layer norm a shift.
  TokenNorm(const Builder& build, const std::string& name, Norm kind, int64_t channels, double eps);
  /// Returns the norm before modulate(): an RMS norm has a scale, a layer norm has no weights.
  static TokenNorm modulated(const Builder& build, const std::string& name, Norm kind, int64_t channels, double eps);
  Tensor operator()(const Tensor& x) const;
  /// Returns modulate(norm(x), scale, shift). x: [B, N, C]; scale, shift: [B, C].
  Tensor operator()(const Tensor& x, const Tensor& scale, const Tensor& shift) const;

 private:
  Norm kind_ = Norm::layer;
  Tensor weight_, bias_;
  double eps_ = 1e-6;
};

/// Self-attention of the tokens, with optional norms of queries and keys and rotary positions.
class DitAttention {
 public:
  DitAttention(const Builder& build, const DitOptions& o);
  const std::string& name() const { return name_; }
  /// Returns the projected attention, [B, N, C]. x: [B, N, C]. `rotary`: of the last tokens, null = none; those in front of them are not
  /// rotated. `mask`: [B, N], undefined = all.
  Tensor operator()(const Tensor& x, const RotaryTable* rotary, const Tensor& mask, const Taps* taps) const;

 private:
  Tensor placed(const Tensor& heads, const TokenNorm& norm, const RotaryTable* rotary) const;

  std::string name_;
  int64_t heads_;
  bool normalizes_;
  Linear qkv_, out_;
  TokenNorm q_norm_, k_norm_;
};

/// Attention of the patches to the tokens of the condition, "cross_attn".
class DitCrossAttention {
 public:
  DitCrossAttention(const Builder& build, const DitOptions& o);
  const std::string& name() const { return name_; }
  /// Returns the attention of x to `tokens`. x: [B, N, C].
  Tensor operator()(const Tensor& x, const Tokens& tokens, const Taps* taps) const;

 private:
  std::string name_;
  int64_t heads_;
  Linear q_, kv_, out_;
};

/// What every block receives besides its input.
struct DitState {
  Tensor modulation;  ///< [B, C] after its SiLU; for adaLN-single the six vectors of all blocks, [B, 6C]
  Tokens tokens{};    ///< for cross-attention
  Tensor mask{};      ///< of all tokens, for self-attention
  const RotaryTable* rotary = nullptr;
  at::Generator* dropout = nullptr;
  const Taps* taps = nullptr;
};

class DitBlock {
 public:
  /// Makes a block. `attends`: it has cross-attention; `joins`: it receives the output of an earlier block, "skip_linear" (U-ViT, Bao et
  /// al. 2023).
  DitBlock(const Builder& build, const DitOptions& o, bool attends, bool joins);
  const std::string& name() const { return name_; }
  /// Returns the shape of x, [B, N, C]. `earlier`: of the same shape if the block joins.
  Tensor operator()(Tensor x, const Tensor* earlier, const DitState& state) const;
  void add_to(TapPoints& points) const;

 private:
  Tensor mlp(const Tensor& x) const;

  std::string name_;
  double dropout_;
  MlpActivation activation_;
  TokenNorm norm1_, norm2_;
  DitAttention attention_;
  std::optional<DitCrossAttention> cross_;
  std::optional<Linear> join_;
  Linear wide_, narrow_, modulation_;
  Tensor table_;  ///< instead of modulation_, for adaLN-single
};

/// Returns the layer with weights drawn uniformly in +-sqrt(6 / (in + out)) (Glorot & Bengio 2010) and a bias of zero.
Linear glorot(const Builder& build, const std::string& name, int64_t in, int64_t out, bool bias = true);

}  // namespace brume::nn
