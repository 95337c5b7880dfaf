#pragma once
// What EDM's two networks share (Karras et al. 2022, app. F): the options, the embeddings of noise level and class, and the
// encoder's and the decoder's blocks. Weights are named as in the SongUNet and DhariwalUNet of NVlabs/edm, with the resolution in the
// names of the blocks.
#include <string>
#include <vector>

#include "brume/config/fields.h"
#include "brume/nn/blocks/edm_block.h"

namespace brume::nn {

/// The noise level that the network receives (c_noise of the paper's table 1).
enum class NoiseLabel { edm, vp, ve };

struct EdmUnetOptions {
  int64_t channels = 64;
  std::vector<int64_t> multipliers{1, 2, 2};
  int64_t embedding_multiplier = 4;
  int64_t blocks = 2;
  std::vector<int64_t> attention_resolutions{};
  double dropout = 0;
  NoiseLabel noise_label = NoiseLabel::edm;
  bool null_is_zero = false, zero_init = true, checkpoint = false;

  void declare(Fields& f);
  /// Throws ConfigError for what is wrong with them. `first`: channels of the first convolution.
  void check(const Network::Context& context, int64_t first) const;
  int64_t width(size_t level) const { return channels * multipliers[level]; }
  int64_t embedding() const { return channels * embedding_multiplier; }
  bool attends(int64_t height) const;
  NoiseQuantity quantity() const;
  /// Returns log(sigma) / 4, the timestep, or log(sigma / 2), from what the network is given: quantity() of sigma.
  Tensor label(const Tensor& c_noise) const;
};

/// Returns [width / 2] float32: 10000^(-i / half), or with `endpoint` 10000^(-i / (half - 1)), where i = 0 ... half - 1.
Tensor positional_frequencies(int64_t width, bool endpoint);

/// "map_label": a class as a one-hot vector times `scale`, through a linear layer.
class LabelMap {
 public:
  LabelMap() = default;
  /// Makes the layer. `rows`: classes, the null class among them; that is the vector of zeros if `null_is_zero`, and has no weights then.
  LabelMap(const Builder& build, int64_t rows, bool null_is_zero, int64_t width, bool bias);
  bool defined() const { return layer_.weight.defined(); }
  int64_t classes() const { return layer_.weight.size(1); }  ///< without a null class of zeros
  Linear& layer() { return layer_; }
  /// Maps [B] int64 to [B, width].
  Tensor operator()(const Condition& condition, double scale, at::ScalarType dtype) const;

 private:
  Linear layer_;
};

/// Returns the channels that the network sees: x, and the condition's image.
Tensor concat_image(const Tensor& x, const Condition& condition, int64_t image_channels);

/// Declares the option `resample_filter` with its rule.
void declare_resample_filter(Fields& f, std::vector<double>& taps);

/// Returns "64x64_down": the height twice, as EDM has it.
std::string place_name(int64_t height, const std::string& what);

}  // namespace brume::nn
