#pragma once
// Layers that preserve the magnitude of activations in expectation (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of
// Diffusion Models", sec. 2 and app. B, config G). Weights are named as in NVlabs/edm2.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "brume/nn/blocks/layers.h"
#include "brume/nn/ops/fir_filter.h"

namespace brume::nn {

/// Returns x over its root mean square along `dims`, which stay as dimensions of 1 in the sum (eq. 30 and 47 of the paper); float32.
Tensor unit_magnitude(const Tensor& x, at::IntArrayRef dims);
/// Returns silu(x) / 0.596 (eq. 81).
Tensor mp_silu(const Tensor& x);
/// Returns ((1 - t) a + t b) / sqrt((1 - t)^2 + t^2) (eq. 88).
Tensor mp_sum(const Tensor& a, const Tensor& b, double t);
/// Returns the channels of both, weighted so that b contributes the share t to the magnitude (eq. 103).
Tensor mp_cat(const Tensor& a, const Tensor& b, double t);

/// sqrt(2) cos(frequency x + phase), with stored frequencies and phases (sec. B.3).
class MpFourier {
 public:
  MpFourier() = default;
  MpFourier(const Builder& build, const std::string& name, int64_t channels);
  /// Returns [B, channels] float32. x: [B].
  Tensor operator()(const Tensor& x) const;

 private:
  Tensor frequencies_, phases_;
};

/// A convolution, or a linear layer if kernel is 0, without a bias, whose weights count by their direction alone (eq. 47 and 66).
class MpConv {
 public:
  MpConv() = default;
  MpConv(const Builder& build, const std::string& name, int64_t in, int64_t out, int64_t kernel);
  /// Returns the layer of x times `gain` (a scalar; undefined = 1), in the dtype of x.
  Tensor operator()(const Tensor& x, const Tensor& gain = {}) const;
  /// Returns the rows of unit magnitude, [out, in] or [out, in, k, k] float32.
  Tensor directions() const;
  /// Replaces the weights by those (forced weight normalisation, sec. 2.3).
  void normalize() const;

 private:
  Tensor weight_;
};

struct Edm2BlockOptions {
  enum class Resample { keep, down, up };
  int64_t in = 0, out = 0, embedding = 0, heads = 0;  ///< heads 0 = no attention
  bool decoder = false;
  Resample resample = Resample::keep;
  double dropout = 0, residual_balance = 0.3, attention_balance = 0.3, clip = 256;
  Filter filter{};  ///< between resolutions
};

class Edm2Block {
 public:
  Edm2Block(const Builder& build, const Edm2BlockOptions& options);
  /// Returns [B, out, H', W']. x: [B, in, H, W]; embedding: [B, embedding].
  Tensor operator()(Tensor x, const Tensor& embedding, at::Generator* dropout) const;
  void normalize() const;

 private:
  Tensor attend(const Tensor& x) const;

  Edm2BlockOptions o_;
  Tensor gain_;
  MpConv first_, emb_, second_;
  std::optional<MpConv> skip_, qkv_, proj_;
};

}  // namespace brume::nn
