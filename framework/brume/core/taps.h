#pragma once
// What a caller adds to, or replaces in, a network's forward pass, by the names of its blocks: the residuals of ControlNet and T2I
// adapters, perturbed attention, skipped layers, cached features, features read out for a loss.
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "brume/core/tensor.h"

namespace brume {

/// The names that taps can use, in the order of the forward pass; empty for networks without tap points. A name is the prefix of the
/// block's weights.
struct TapPoints {
  std::vector<std::string> blocks{};            ///< every block
  std::vector<std::string> skippable{};         ///< blocks whose output has the shape of their input
  std::vector<std::string> skip_connections{};  ///< blocks whose output the decoder receives as well
  std::vector<std::string> attention{};         ///< blocks that compute attention(q, k, v)
};

/// Empty taps leave the bits of a network as they are. The functions are called from the threads that call the network.
struct Taps {
  /// Returns what stands in for a block's output: `input` to skip the block, a kept tensor instead of computing it, or compute() to
  /// look at it.
  using Block = std::function<Tensor(const Tensor& input, const std::function<Tensor()>& compute)>;
  /// Returns what stands in for attention(q, k, v), before the output projection. q: [B, heads, N, d]; k, v: [B, heads, M, d].
  using Attention = std::function<Tensor(const Tensor& q, const Tensor& k, const Tensor& v)>;

  std::map<std::string, Tensor, std::less<>> residuals{};       ///< added to the block's output; of its shape
  std::map<std::string, Tensor, std::less<>> skip_residuals{};  ///< added to what is kept for the decoder alone (ControlNet)
  std::map<std::string, Block, std::less<>> blocks{};
  std::map<std::string, Attention, std::less<>> attention{};

  bool empty() const { return residuals.empty() && skip_residuals.empty() && blocks.empty() && attention.empty(); }
  /// Throws ConfigError naming a block that is not among `points`, and the nearest that is.
  void check(const TapPoints& points) const;

  /// Returns block(input) with what `blocks` and `residuals` say of `name`. Throws ConfigError if a residual is not of its shape.
  Tensor apply(std::string_view name, const Tensor& input, const std::function<Tensor()>& compute) const;
  /// Returns what the decoder receives of `h`. Throws ConfigError as above.
  Tensor skip(std::string_view name, const Tensor& h) const;
};

}  // namespace brume
