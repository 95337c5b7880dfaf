// The multimodal diffusion transformer (Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis"): the
// words of a prompt are a second stream of tokens, which attends together with the patches. Stable Diffusion 3 and 3.5, and FLUX (Black
// Forest Labs 2024), whose later blocks have one stream, whose positions are rotary, and which may take the guidance scale as a condition.
//
//   c = mlp(noise level) + mlp(pooled vector) + mlp(guidance scale)
//   words = linear(context);  patches = patches(x) + positions
//   depth times:  (words, patches) = joint(words, patches, c);   single_depth times:  [words; patches] = single([words; patches], c)
//   F = patches of linear(norm(patches) (1 + scale) + shift)
//
// Weights are named as in Stability's MMDiT. Of the rotary axes the first is of the words, which all stand at 0, then come row and column.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <tuple>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/network.h"
#include "brume/nn/blocks/edm_unet.h"
#include "brume/nn/blocks/joint_block.h"
#include "brume/nn/blocks/recompute.h"
#include "brume/nn/ops/ops.h"
#include "brume/nn/ops/transformer_ops.h"

namespace brume::plugins {
namespace {

struct MmditOptions {
  int64_t patch = 2, width = 128, depth = 4, heads = 2, single_depth = 0, noise_width = 256, position_size = 0;
  double mlp_ratio = 4;
  bool qk_norm = false, checkpoint = false;
  std::vector<int64_t> dual_blocks, rotary_axes;
  std::shared_ptr<const NoiseEmbedding> noise_embedding;

  void declare(Fields& f) {
    f.field("patch", patch, "height and width of a patch", within(1, 256));
    f.field("width", width, "channels of a token, a multiple of 4", within(4, 65536));
    f.field("depth", depth, "number of blocks with two streams", within(1, 1000));
    f.field("single_depth", single_depth, "number of blocks with one stream, after those (FLUX)", within(0, 1000));
    f.field("heads", heads, "heads of the attention", at_least(1));
    f.field("mlp_ratio", mlp_ratio, "channels within the multilayer perceptron, over width", more_than(0));
    f.field("qk_norm", qk_norm, "normalize queries and keys, head by head (SD 3.5, FLUX)");
    f.field("dual_blocks", dual_blocks, "blocks, from 0 on, whose patches attend to themselves as well (SD 3.5 medium)", at_least(0));
    f.field("position_size", position_size,
            "rows and columns of the table of positions, cropped at its centre: 192 (SD 3); 0 = as many as the image has patches",
            at_least(0));
    f.field("rotary_axes", rotary_axes,
            "channels of a head that turn by the words' axis, the row and the column: [16, 56, 56] (FLUX); "
            "instead of the table",
            at_least(0));
    f.field("noise_width", noise_width, "features of the noise level, an even number", within(2, 65536));
    f.field("noise_embedding", noise_embedding, "embedding of the noise level", "sinusoidal");
    nn::declare_checkpoint(f, checkpoint);
    f.require(width % 4 == 0, "width", "must be a multiple of 4", fmt::format("{} is no multiple of 4", width));
    f.require(heads < 1 || width % heads == 0, "heads", "must divide width",
              fmt::format("{} do not divide width {}", counted(heads, "head"), width));
    f.require(noise_width % 2 == 0, "noise_width", "must be even");
    for (const int64_t block : dual_blocks)
      f.require(block < depth, "dual_blocks", "must be less than depth", fmt::format("there is no block {}: depth is {}", block, depth));
    if (rotary_axes.empty() || heads < 1) return;
    const int64_t sum = std::accumulate(rotary_axes.begin(), rotary_axes.end(), int64_t{0});
    bool even = rotary_axes.size() == 3;
    for (const int64_t axis : rotary_axes) even = even && axis % 2 == 0;
    f.require(even && sum == width / heads, "rotary_axes", "must be three even numbers whose sum is the channels of a head",
              fmt::format("three even numbers whose sum is {}, the channels of a head, are needed", width / heads));
  }
};

class Mmdit final : public Network {
 public:
  using Options = MmditOptions;

  static void check(const Options& o, const Context& c) {
    if (c.input.height % o.patch || c.input.width % o.patch)
      throw ConfigError(
          fmt::format("patch: {} does not divide {}x{}, the height and width of the network's input; divisors of both are needed", o.patch,
                      c.input.height, c.input.width));
    check_condition("mmdit", {.classes = true, .tokens = true, .image = true, .vector = true, .guidance = true}, c);
    if (o.position_size > 0 && o.rotary_axes.empty()) check_positions(o, {c.input.height / o.patch, c.input.width / o.patch});
    if (c.guidance && o.noise_embedding->random())
      throw ConfigError("noise_embedding: the guidance scale is embedded as the noise level is, and needs type: sinusoidal");
  }

  Mmdit(const Options& o, const Context& c)
      : o_(o),
        build_(c.seed),
        channels_out_(c.out_channels),
        image_channels_(c.image_channels),
        grid_{c.input.height / o.patch, c.input.width / o.patch} {
    patch_ = build_["x_embedder"].conv2d("proj", c.input.channels + c.image_channels, o.width, o.patch, o.patch);
    patch_.padding = 0;
    make_positions();
    frequencies_ = o.noise_embedding->frequencies(o.noise_width, build_.random());
    if (o.noise_embedding->random()) frequencies_ = build_.buffer("noise_frequencies", frequencies_);
    noise_ = embedder("t_embedder", o.noise_width);
    if (c.vector_width > 0) vector_ = embedder("y_embedder", c.vector_width);
    if (c.guidance) guidance_ = embedder("g_embedder", o.noise_width);
    if (c.classes > 0) class_ = build_["class_embedder"].normal("weight", {c.classes, o.width}, 0.02);
    if (c.context_width > 0) words_ = nn::glorot(build_, "context_embedder", c.context_width, o.width);
    const nn::JointOptions joint{o.width, o.heads, o.mlp_ratio, 1e-6, o.qk_norm};
    for (int64_t i = 0; i < o.depth; ++i) {
      const bool dual = std::find(o.dual_blocks.begin(), o.dual_blocks.end(), i) != o.dual_blocks.end();
      blocks_.emplace_back(build_["joint_blocks"][i], joint, c.context_width > 0, i + 1 == o.depth && o.single_depth == 0, dual);
    }
    for (int64_t i = 0; i < o.single_depth; ++i) singles_.emplace_back(build_["single_blocks"][i], joint);
    const nn::Builder last = build_["final_layer"];
    norm_ = nn::TokenNorm::modulated(last, "norm_final", nn::Norm::layer, o.width, 1e-6);
    last_modulation_ = nn::zeroed(last.linear("adaLN_modulation.1", o.width, 2 * o.width));
    out_ = nn::zeroed(last.linear("linear", o.width, o.patch * o.patch * c.out_channels));
  }

  NoiseQuantity quantity() const override { return o_.noise_embedding->quantity(); }
  std::vector<Weight> weights() const override { return build_.weights(); }
  int64_t multiple() const override { return o_.patch; }

  Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition& condition, at::Generator*, const Taps& taps) const override {
    const nn::PatchGrid grid{input.size(2) / o_.patch, input.size(3) / o_.patch};
    const Tensor c = nn::silu(embedding(c_noise, condition, input.scalar_type()));
    Tensor words = words_of(condition, input.scalar_type());
    std::optional<nn::RotaryTable> rotary;
    if (!o_.rotary_axes.empty()) rotary = rotary_of(grid, input.device());
    const nn::JointState state{c, mask_of(condition, words, grid), rotary ? &*rotary : nullptr, taps.empty() ? nullptr : &taps};
    Tensor x = patches(nn::concat_image(input, condition, image_channels_), grid);
    const auto again = [&](size_t number) {
      return o_.checkpoint && !state.taps && number + 1 < blocks_.size() + singles_.size() && nn::Recomputation::possible();
    };
    for (size_t i = 0; i < blocks_.size(); ++i)
      if (again(i))
        std::tie(words, x) = checkpointed(blocks_[i], words, x, state);
      else
        blocks_[i](words, x, state);
    if (!singles_.empty()) {
      const int64_t front = words.defined() ? words.size(1) : 0;
      if (front > 0) x = at::cat({words, x}, 1);
      for (size_t i = 0; i < singles_.size(); ++i)
        x = again(blocks_.size() + i) ? checkpointed(singles_[i], x, state) : singles_[i](x, state);
      x = x.narrow(1, front, grid.count());
    }
    const std::vector<Tensor> m = last_modulation_(c).chunk(2, 1);
    return image(out_(norm_(x, m[1], m[0])), grid);
  }

  TapPoints tap_points() const override {
    TapPoints points;
    for (const nn::JointBlock& block : blocks_) block.add_to(points);
    for (const nn::SingleBlock& block : singles_) block.add_to(points);
    return points;
  }

 private:
  using Embedder = std::vector<nn::Linear>;

  static void check_positions(const Options& o, const nn::PatchGrid& grid) {
    if (grid.rows > o.position_size || grid.columns > o.position_size)
      throw ConfigError(fmt::format("position_size: an image of {}x{} patches does not fit the table of positions, which has {}x{}",
                                    grid.rows, grid.columns, o.position_size, o.position_size));
  }

  Embedder embedder(const std::string& name, int64_t in) const {
    const nn::Builder mlp = build_[name]["mlp"];
    Embedder layers{nn::glorot(mlp, "0", in, o_.width), nn::glorot(mlp, "2", o_.width, o_.width)};
    for (nn::Linear& layer : layers)
      if (!nn::SkipInit::now()) layer.weight.normal_(0, 0.02, build_.random());
    return layers;
  }
  /// The state without what it points to.
  struct OwnState {
    nn::JointState state;
    nn::RotaryTable rotary;
    explicit OwnState(const nn::JointState& s) : state(s), rotary(s.rotary ? *s.rotary : nn::RotaryTable{}) {}
    nn::JointState operator*() const { return {state.embedding, state.mask, state.rotary ? &rotary : nullptr, nullptr}; }
  };
  static std::pair<Tensor, Tensor> checkpointed(const nn::JointBlock& block, const Tensor& words, const Tensor& x,
                                                const nn::JointState& state) {
    return nn::recomputed(true, nullptr, [=, &block, own = OwnState(state)](at::Generator*) {
      std::pair<Tensor, Tensor> streams{words, x};
      block(streams.first, streams.second, *own);
      return streams;
    });
  }
  static Tensor checkpointed(const nn::SingleBlock& block, const Tensor& x, const nn::JointState& state) {
    return nn::recomputed(true, nullptr, [=, &block, own = OwnState(state)](at::Generator*) { return block(x, *own); });
  }

  static Tensor apply(const Embedder& layers, const Tensor& x) { return layers[1](nn::silu(layers[0](x))); }

  void make_positions() {
    if (!o_.rotary_axes.empty()) return;
    const nn::PatchGrid table = o_.position_size > 0 ? nn::PatchGrid{o_.position_size, o_.position_size} : grid_;
    positions_ = build_.buffer("pos_embed", nn::sine_positions(table, grid_, o_.width).unsqueeze(0));
  }

  /// Returns the middle of the table of positions; without a size of its own, the table spread over the image.
  Tensor positions_of(const nn::PatchGrid& grid) const {
    if (o_.position_size == 0) return nn::resized_positions(positions_, grid, grid_);
    check_positions(o_, grid);
    const int64_t top = (o_.position_size - grid.rows) / 2, left = (o_.position_size - grid.columns) / 2;
    return positions_.view({o_.position_size, o_.position_size, o_.width})
        .narrow(0, top, grid.rows)
        .narrow(1, left, grid.columns)
        .reshape({1, grid.count(), o_.width});
  }

  /// Angles position * 10000^(-2i / channels), axis by axis.
  nn::RotaryTable rotary_of(const nn::PatchGrid& grid, const at::Device& device) const {
    const int64_t half = o_.width / o_.heads / 2;
    const nn::RotaryTable table{at::empty({grid.count(), half}, at::kFloat), at::empty({grid.count(), half}, at::kFloat)};
    float *cosine = table.cosines.data_ptr<float>(), *sine = table.sines.data_ptr<float>();
    for (int64_t token = 0; token < grid.count(); ++token) {
      const double position[3] = {0, double(token / grid.columns), double(token % grid.columns)};
      for (size_t axis = 0; axis < 3; ++axis)
        for (int64_t i = 0; i < o_.rotary_axes[axis] / 2; ++i) {
          const double angle = position[axis] * std::pow(10000.0, -2 * double(i) / double(o_.rotary_axes[axis]));
          *cosine++ = float(std::cos(angle)), *sine++ = float(std::sin(angle));
        }
    }
    return {table.cosines.to(device), table.sines.to(device)};
  }

  /// Returns [B, N, C] of the patches of an image, row by row.
  Tensor patches(const Tensor& input, const nn::PatchGrid& grid) const {
    const Tensor x = patch_(input).permute({0, 2, 3, 1}).reshape({input.size(0), grid.count(), o_.width});
    return positions_.defined() ? x + positions_of(grid).to(x.options()) : x;
  }
  /// Returns the inverse: [B, N, patch patch C] to [B, C, H, W].
  Tensor image(const Tensor& tokens, const nn::PatchGrid& grid) const {
    return tokens.reshape({tokens.size(0), grid.rows, grid.columns, o_.patch, o_.patch, channels_out_})
        .permute({0, 5, 1, 3, 2, 4})
        .reshape({tokens.size(0), channels_out_, grid.rows * o_.patch, grid.columns * o_.patch});
  }

  Tensor features(const Tensor& numbers, at::ScalarType dtype) const {
    return o_.noise_embedding->features(numbers, frequencies_.to(numbers.device(), at::kFloat)).to(dtype);
  }
  /// Embeds noise level, pooled vector, guidance scale and class, [B, C].
  Tensor embedding(const Tensor& c_noise, const Condition& condition, at::ScalarType dtype) const {
    Tensor c = apply(noise_, features(c_noise, dtype));
    if (!guidance_.empty()) {
      if (!condition.guidance.defined()) throw std::logic_error("an mmdit that takes a guidance scale was given none");
      c = c + apply(guidance_, features(condition.guidance.to(at::kFloat) * 1000, dtype));
    }
    if (!vector_.empty()) {
      if (!condition.vector.defined()) throw std::logic_error("an mmdit that takes a pooled vector was given none");
      c = c + apply(vector_, condition.vector.to(dtype));
    }
    if (!class_.defined()) return c;
    if (!condition.classes.defined()) throw std::logic_error("a class-conditional mmdit was given no classes");
    return c + class_.index_select(0, condition.classes).to(dtype);
  }

  Tensor words_of(const Condition& condition, at::ScalarType dtype) const {
    if (!words_.weight.defined()) return {};
    if (!condition.context.defined()) throw std::logic_error("an mmdit that takes tokens was given none");
    return words_(condition.context.to(dtype));
  }
  static Tensor mask_of(const Condition& condition, const Tensor& words, const nn::PatchGrid& grid) {
    if (!words.defined() || !condition.context_mask.defined()) return {};
    return at::cat({condition.context_mask, at::ones({words.size(0), grid.count()}, condition.context_mask.options())}, 1);
  }

  Options o_;
  nn::Builder build_;
  int64_t channels_out_, image_channels_;
  nn::PatchGrid grid_;  ///< of the size that the network was made for
  nn::Conv2d patch_;
  Tensor positions_, frequencies_, class_;
  Embedder noise_, vector_, guidance_;
  nn::Linear words_;
  std::vector<nn::JointBlock> blocks_;
  std::vector<nn::SingleBlock> singles_;
  nn::TokenNorm norm_;
  nn::Linear last_modulation_, out_;
};

}  // namespace

void register_network_mmdit(Registry& r) { r.add<Network, Mmdit>("mmdit", "the multimodal diffusion transformer (SD 3, SD 3.5, FLUX)"); }

}  // namespace brume::plugins
