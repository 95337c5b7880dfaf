#pragma once
// The parts of U-Nets of the ADM family, used by the U-Net and by the classifier (its encoder): options, timestep embedding, encoder,
// middle and decoder. Weights are named as in guided-diffusion.
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "brume/config/fields.h"
#include "brume/nn/blocks/attention_block.h"
#include "brume/nn/blocks/resblock.h"
#include "brume/nn/blocks/transformer.h"

namespace brume::nn {

enum class Resampling { conv, pool, residual };
/// The embedding of a class: a row of its own, or its number, embedded as the noise level is.
enum class ClassEmbedding { table, sinusoidal };

/// The spatial transformers of a U-Net, instead of plain attention.
struct UnetTransformer {
  std::vector<int64_t> depth{1};
  Projection projection = Projection::conv;
  double dropout = 0;
  std::vector<int64_t> only_cross_attention{};  ///< levels, 0 the image's; the middle is of no level
  void declare(Fields& f);
  bool only_cross(size_t level) const;
  int64_t depth_at(size_t level) const { return depth.size() == 1 ? depth[0] : depth[level]; }
};

struct UnetOptions {
  int64_t channels = 64;
  std::vector<double> multipliers{1, 2, 2};
  int64_t blocks = 2;
  std::vector<int64_t> attention_resolutions{};
  bool middle_attention = true;
  int64_t heads = 1;
  std::optional<int64_t> decoder_heads;  ///< of the decoder; declared by the whole U-Net only
  std::optional<int64_t> head_channels;
  std::vector<int64_t> heads_per_level;  ///< instead of heads and head_channels; of encoder and decoder; empty = the same at all levels
  QkvOrder attention_order = QkvOrder::heads_first;
  bool scale_shift = true, zero_init = true, checkpoint = false;
  Resampling resampling = Resampling::conv;
  double dropout = 0;
  int64_t groups = 32;
  double norm_eps = 1e-5;
  bool pad_below = false;                                  ///< strided convolutions
  std::optional<UnetTransformer> transformer;              ///< declared by the whole U-Net only
  ClassEmbedding class_embedding = ClassEmbedding::table;  ///< declared by the whole U-Net only
  int64_t size_channels = 256, guidance_channels = 256;    ///< declared by the whole U-Net only
  std::shared_ptr<const NoiseEmbedding> noise_embedding;

  /// Declares the parameters and their rules; those of the decoder if `decoder`.
  void declare(Fields& f, bool decoder);
  /// Throws ConfigError for what is wrong with these options for inputs of this shape. `decoder`: those of the whole U-Net.
  void check(const ImageShape& input, bool decoder = false) const;
  /// Returns true if the whole U-Net takes any sides: strided convolutions round up, and the decoder upsamples to the skip connections.
  bool any_sides() const { return resampling == Resampling::conv && !pad_below; }

  int64_t width(double multiplier) const { return std::llround(double(channels) * multiplier); }  ///< channels of a level
  int64_t embedding() const { return 4 * channels; }  ///< width of the embedding of the noise level
  bool attends(int64_t height) const;
  int64_t heads_of(int64_t width, size_t level, bool decoder) const;
  bool heads_fit(int64_t width, size_t level) const;
};

/// One entry of input_blocks or output_blocks: the modules that it has are applied in this order.
struct Stage {
  std::string name{};        ///< "input_blocks.3"; its modules are "input_blocks.3.0" and on
  int64_t first = 0;         ///< number of its first module
  bool keeps_shape = false;  ///< the residual block has as many channels out as in
  std::optional<Conv2d> conv;
  std::optional<ResBlock> block;
  std::optional<AttentionBlock> attention;
  std::optional<SpatialTransformer> transformer;
  std::optional<ResBlock> resample;
  Resample pool = Resample::none;  ///< before pool_conv
  bool pad_below = false;          ///< one row and column, below and to the right, before pool_conv
  std::optional<Conv2d> pool_conv;

  bool attends() const { return attention || transformer; }
  /// Returns true if its backward pass needs more than its input.
  bool keeps_values() const { return block || attends() || resample; }
  /// Returns the stage's output. h: [B, C, H, W]; embedding: [B, E] after its SiLU. `taps`: null = none. `next`: the skip connection that
  /// the next stage takes, whose height and width this one upsamples to if it upsamples; null = twice its own.
  Tensor operator()(Tensor h, const Tensor& embedding, at::Generator* dropout, const Tokens& tokens = {}, const Taps* taps = nullptr,
                    const Tensor* next = nullptr) const;
  /// Adds the names of its modules and of the blocks within them, not its own.
  void add_to(TapPoints& points) const;
};

/// A number as an embedding: the noise level, "time_embed" (Ho et al. 2020, app. B), or a class, "label_emb".
class TimestepEmbedding {
 public:
  TimestepEmbedding(const Builder& build, const UnetOptions& options, const char* name = "time_embed");
  /// Maps [B] to [B, 4 channels], before the SiLU every block begins with. added: [B, channels], added to the features; undefined = none.
  Tensor operator()(const Tensor& numbers, at::ScalarType dtype, const Tensor& added = {}) const;
  NoiseQuantity quantity() const { return noise_->quantity(); }

 private:
  std::shared_ptr<const NoiseEmbedding> noise_;
  Tensor frequencies_;
  Linear layers_[2];
};

/// The pooled vector and the sizes of a condition as an embedding, "label_emb.0" (Podell et al. 2023, "SDXL", sec. 2.1 and 2.2): a network
/// over the vector and each size, embedded as the noise level is.
class VectorEmbedding {
 public:
  VectorEmbedding(const Builder& build, const UnetOptions& options, int64_t vector_width, int64_t size_ids);
  /// Returns [B, 4 channels], before the SiLU every block begins with. Throws std::logic_error if the condition lacks the parts.
  Tensor operator()(const Condition& condition, at::ScalarType dtype) const;

 private:
  std::shared_ptr<const NoiseEmbedding> noise_;
  int64_t vector_width_, size_ids_;
  Tensor frequencies_;
  Linear layers_[2];
};

/// Gives `stage` its residual block.
void unet_block(Stage& stage, const Builder& build, const UnetOptions& o, int64_t in, int64_t out);

/// The levels that attend.
struct AttentionPlace {
  int64_t channels = 0;
  size_t level = 0;
  bool decoder = false;
  int64_t context = 0;  ///< width of the tokens attended to; 0 = none
  bool middle = false;
};
/// Gives `stage` its attention: a block, or a spatial transformer if the options ask for one.
void unet_attention(Stage& stage, const Builder& build, const UnetOptions& o, const AttentionPlace& place);
/// Makes `stage` change the resolution; `build` names the place in the list of the stage's modules.
void unet_resample(Stage& stage, const Builder& build, const UnetOptions& o, int64_t channels, Resample way);

/// "input_blocks": from the image to the lowest resolution.
struct UnetEncoder {
  std::vector<Stage> stages;
  std::vector<int64_t> channels;  ///< of each stage's output
  std::vector<int64_t> heights;   ///< of each level
  int64_t height = 0;             ///< at the end
};
UnetEncoder make_unet_encoder(const Builder& build, const UnetOptions& o, const ImageShape& input, int64_t context = 0);

/// Returns "middle_block": block, attention if the options ask for it, block.
std::vector<Stage> unet_middle(const Builder& build, const UnetOptions& o, int64_t channels, int64_t context = 0);

/// "output_blocks": from the lowest resolution to the image's. Each stage takes its input and the output of an encoder's stage, the last
/// first, concatenated.
struct UnetDecoder {
  std::vector<Stage> stages;
  int64_t channels = 0;  ///< of the last stage's output
};
UnetDecoder make_unet_decoder(const Builder& build, const UnetOptions& o, const UnetEncoder& encoder, int64_t context = 0);

}  // namespace brume::nn
