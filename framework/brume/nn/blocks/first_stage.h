#pragma once
// The encoder and decoder of latent diffusion (Rombach et al. 2022, app. E.1; Esser et al. 2021, app. A): residual blocks without
// time, halved by strided convolutions and doubled by nearest neighbour, self-attention at the bottleneck.
//
// Weights are named as in CompVis' latent-diffusion and taming-transformers, whose state dicts load as they are.
#include <functional>
#include <optional>

#include "brume/config/fields.h"
#include "brume/core/dataset.h"
#include "brume/nn/blocks/layers.h"

namespace brume::nn {

struct FirstStageOptions {
  int64_t channels = 64;
  std::vector<int64_t> multipliers = {1, 2, 4};
  int64_t blocks = 2;
  std::vector<int64_t> attention_resolutions;
  bool middle_attention = true;
  int64_t latent_channels = 4;
  std::optional<int64_t> inner_channels;  ///< z_channels of CompVis, whose embed_dim is latent_channels
  bool quant_conv = true, checkpoint = false;
  int64_t groups = 32;
  double dropout = 0;

  void declare(Fields& f);
  /// Throws ConfigError for what is wrong with these options for images of this shape.
  void check(const ImageShape& image) const;
  int64_t inner() const { return inner_channels.value_or(latent_channels); }  ///< channels the decoder begins with
  int64_t ratio() const { return int64_t(1) << (multipliers.size() - 1); }    ///< pixels of an image to one of its latent, along a side
  /// Returns about how many bytes decoding an image of this shape takes, by the widest of its levels.
  int64_t decoding_memory(const ImageShape& image, at::ScalarType dtype) const;
};

/// norm, SiLU, convolution; twice, with dropout before the second.
class FirstStageBlock {
 public:
  FirstStageBlock(const Builder& build, const FirstStageOptions& options, int64_t in, int64_t out);
  /// Returns [B, out, H, W]. x: [B, in, H, W].
  Tensor operator()(Tensor x, at::Generator* dropout) const;

 private:
  double dropout_;
  GroupNorm norm1_, norm2_;
  Conv2d conv1_, conv2_, shortcut_;
};

/// Self-attention of the positions with one head over all channels.
class FirstStageAttention {
 public:
  FirstStageAttention(const Builder& build, const FirstStageOptions& options, int64_t channels);
  /// Returns x + projection(attention(norm(x))). x: [B, C, H, W].
  Tensor operator()(Tensor x) const;

 private:
  GroupNorm norm_;
  Conv2d q_, k_, v_, out_;
};

/// Images to moments and latents to images.
class FirstStageNetwork {
 public:
  /// Makes encoder and decoder. `image` says at which levels there is attention; `moments`: channels of what `encode` gives.
  FirstStageNetwork(const Builder& build, const FirstStageOptions& options, const ImageShape& image, int64_t moments);
  /// Returns [B, moments, H / ratio, W / ratio]. images: [B, C, H, W], any floating type, which it computes in.
  Tensor encode(const Tensor& images, at::Generator* dropout) const;
  /// Returns [B, C, h ratio, w ratio]. z: [B, latent_channels, h, w].
  Tensor decode(const Tensor& z, at::Generator* dropout) const;
  const Tensor& last_layer() const { return decoder_.out.weight; }

 private:
  /// A block, and what follows it.
  struct Step {
    FirstStageBlock block;
    std::optional<FirstStageAttention> attention;
    Tensor operator()(Tensor x, at::Generator* dropout) const;
  };
  struct Level {
    std::vector<Step> steps;
    Conv2d resample;  ///< to the next level; undefined at the last
  };
  struct Half {
    Conv2d in, out, quant;
    std::vector<Level> levels;  ///< in the order of computing
    std::vector<Step> middle;
    GroupNorm norm;
  };
  using Resample = std::function<Tensor(const Tensor&)>;
  /// Runs the steps, and `resample` after the last one if it is given.
  Tensor through(const std::vector<Step>& steps, Tensor h, at::Generator* dropout, const Resample& resample = {}) const;
  void make_encoder(const Builder& build, const ImageShape& image, int64_t moments);
  void make_decoder(const Builder& build, const ImageShape& image);
  std::vector<Step> make_middle(const Builder& build, int64_t channels) const;
  Step make_step(const Builder& level, int64_t index, int64_t in, int64_t out, int64_t height) const;

  FirstStageOptions o_;
  Half encoder_, decoder_;
};

}  // namespace brume::nn
