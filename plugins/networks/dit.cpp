// The diffusion transformer (Peebles & Xie 2023, "Scalable Diffusion Models with Transformers"): an image is cut into patches, which
// are the tokens of a transformer; noise level and class scale, shift and gate each block (adaLN-Zero). With the options of those who
// followed: SiT (Ma et al. 2024) has the same network; PixArt (Chen et al. 2024): cross-attention to words, adaLN-single; LightningDiT
// (Yao & Wang 2025): RMS norm, SwiGLU, rotary positions, norms of queries and keys; U-ViT (Bao et al. 2023): long skips, tokens in
// context; JiT (Li & He 2025): large patches of pixels.
//
//   tokens = patches(x) + positions;   c = mlp(noise level) + row of the class
//   depth times:  x += gate1 attention(norm(x) (1 + scale1) + shift1);   x += gate2 mlp(norm(x) (1 + scale2) + shift2)
//   F = patches of linear(norm(x) (1 + scale) + shift)
// Patches are squares of an image, pieces of a signal (an image of one row) or blocks of a volume (an image of slices, one below the
// other).
//
// Weights are named as in DiT, so that its state dicts load as they are; the table of fixed positions is computed.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <fmt/format.h>

#include <cmath>
#include <numeric>
#include <optional>
#include <stdexcept>

#include "brume/config/registry.h"
#include "brume/core/network.h"
#include "brume/nn/blocks/dit.h"
#include "brume/nn/blocks/edm_unet.h"
#include "brume/nn/blocks/recompute.h"
#include "brume/nn/ops/ops.h"
#include "brume/nn/ops/transformer_ops.h"

namespace brume::plugins {
namespace {

class Dit final : public Network {
 public:
  struct Options : nn::DitOptions {};

  static void check(const Options& o, const Context& c) {
    check_sides(o, c.input.height, c.input.width, o.patch_of(c.input.height));
    check_condition("dit", {.classes = true, .tokens = true, .image = true, .vector = true, .sizes = true}, c);
    if (c.size_ids == 0) return;
    if (c.size_ids != 6)
      throw ConfigError("dit embeds the target size of the condition, and the conditioner gives an aesthetic score instead");
    if (o.width % 3 != 0)
      throw ConfigError(
          fmt::format("width: must be a multiple of 3 for a condition of sizes, a third for each number; {} is none", o.width));
    if (o.noise_embedding->random())
      throw ConfigError("noise_embedding: the sizes of the condition are embedded as the noise level is, and need type: sinusoidal");
  }

  Dit(const Options& o, const Context& c)
      : o_(o),
        build_(c.seed),
        image_channels_(c.image_channels),
        patch_size_(o.patch_of(c.input.height)),
        grid_(grid_of(c.input.height, c.input.width)) {
    make_embedders(c);
    make_positions();
    for (int64_t i = 0; i < o.depth; ++i)
      blocks_.emplace_back(build_["blocks"][i], o, c.context_width > 0 && o.tokens == nn::TokenUse::cross_attention, joins(i));
    const nn::Builder last = build_["final_layer"];
    norm_ = nn::TokenNorm::modulated(last, "norm_final", o.norm, o.width, o.norm_eps);
    if (o.modulation == nn::Modulation::single)
      last_table_ = last.normal("scale_shift_table", {2, o.width}, 1 / std::sqrt(double(o.width)));
    else
      last_modulation_ = nn::zeroed(last.linear("adaLN_modulation.1", o.width, 2 * o.width));
    out_ = nn::zeroed(last.linear("linear", o.width, patch_size_.count() * c.out_channels));
  }

  NoiseQuantity quantity() const override { return o_.noise_embedding->quantity(); }
  std::vector<Weight> weights() const override { return build_.weights(); }
  int64_t multiple() const override { return std::gcd(o_.slices * patch_size_.height, patch_size_.width); }

  Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition& condition, at::Generator* dropout,
                 const Taps& taps) const override {
    check_sides(o_, input.size(2), input.size(3), patch_size_);
    const nn::PatchGrid grid = grid_of(input.size(2), input.size(3));
    const Tensor c = embedding(c_noise, condition, input.scalar_type());
    const nn::Tokens tokens = tokens_of(condition, input.scalar_type());
    const std::optional<nn::RotaryTable> rotary = rotary_of(grid, input.device());
    const bool front = tokens.values.defined() && o_.tokens == nn::TokenUse::in_context;
    nn::DitState state{.modulation = all_ ? (*all_)(nn::silu(c)) : nn::silu(c),
                       .tokens = front ? nn::Tokens{} : tokens,
                       .mask = front ? mask_of(tokens, grid) : Tensor(),
                       .rotary = rotary ? &*rotary : nullptr,
                       .dropout = dropout,
                       .taps = taps.empty() ? nullptr : &taps};
    Tensor x = patches(nn::concat_image(input, condition, image_channels_), grid);
    if (front) x = at::cat({tokens.values, x}, 1);
    x = run_blocks(std::move(x), state);
    if (front) x = x.narrow(1, tokens.values.size(1), grid.count());
    const std::vector<Tensor> m = last_modulation(c).chunk(2, 1);
    return nn::join_patches(out_(norm_(x, m[1], m[0])), grid, patch_size_);
  }

  TapPoints tap_points() const override {
    TapPoints points;
    for (size_t i = 0; i < blocks_.size(); ++i) {
      blocks_[i].add_to(points);
      if (keeps(int64_t(i))) points.skip_connections.push_back(blocks_[i].name());
    }
    return points;
  }

 private:
  static void check_sides(const Options& o, int64_t height, int64_t width, const nn::PatchSize& p) {
    if (height % o.slices)
      throw ConfigError(fmt::format("slices: {} do not divide {}, the height of the network's input", o.slices, height));
    if (height / o.slices % p.height == 0 && width % p.width == 0) return;
    if (p.height == p.width && o.slices == 1)
      throw ConfigError(
          fmt::format("patch: {} does not divide {}x{}, the height and width of the network's input; divisors of both are needed", o.patch,
                      height, width));
    throw ConfigError(fmt::format("patch: patches of {}x{} do not divide {}x{}, the height and width of {}", p.height, p.width,
                                  height / o.slices, width, o.slices == 1 ? "the network's input" : "a slice of the network's input"));
  }
  nn::PatchGrid grid_of(int64_t height, int64_t width) const {
    return {height / o_.slices / patch_size_.height, width / patch_size_.width, o_.slices / patch_size_.slices};
  }
  bool flat() const { return patch_size_.height == patch_size_.width && o_.slices == 1; }

  /// Blocks of the first half that those of the second half join, the last one first.
  bool keeps(int64_t block) const { return o_.long_skips && block < o_.depth / 2; }
  bool joins(int64_t block) const { return o_.long_skips && block >= o_.depth - o_.depth / 2; }

  void make_embedders(const Context& c) {
    const int64_t channels = c.input.channels + c.image_channels;
    if (flat())
      patch_ = build_["x_embedder"].conv2d("proj", channels, o_.width, o_.patch, o_.patch), patch_.padding = 0;
    else
      values_ = build_["x_embedder"].linear("proj", channels * patch_size_.count(), o_.width);
    const nn::Builder time = build_["t_embedder"]["mlp"];
    noise_[0] = embedder(time, "0", o_.noise_width);
    noise_[1] = embedder(time, "2", o_.width);
    frequencies_ = o_.noise_embedding->frequencies(o_.noise_width, build_.random());
    if (o_.noise_embedding->random()) frequencies_ = build_.buffer("noise_frequencies", frequencies_);
    if (c.classes > 0) class_ = build_["y_embedder"].normal("embedding_table.weight", {c.classes, o_.width}, 0.02);
    if (c.vector_width > 0)
      vector_ = {embedder(build_, "vector_embedder.0", c.vector_width), embedder(build_, "vector_embedder.2", o_.width)};
    if (c.size_ids > 0)
      for (const char* name : {"csize_embedder", "ar_embedder"}) {
        const nn::Builder mlp = build_[name]["mlp"];
        sizes_.push_back(embedder(mlp, "0", o_.noise_width, o_.width / 3));
        sizes_.push_back(embedder(mlp, "2", o_.width / 3, o_.width / 3));
      }
    if (c.context_width > 0) {
      const nn::Builder words = build_["y_embedder"]["y_proj"];
      words_ = {embedder(words, "fc1", c.context_width), embedder(words, "fc2", o_.width)};
    }
    if (o_.modulation == nn::Modulation::single) all_ = embedder(build_, "t_block.1", o_.width, 6 * o_.width);
  }

  /// Returns a layer of an embedder, N(0, 0.02^2) as in DiT.
  nn::Linear embedder(const nn::Builder& build, const std::string& name, int64_t in, int64_t out = 0) const {
    nn::Linear layer = nn::glorot(build, name, in, out > 0 ? out : o_.width);
    if (!nn::SkipInit::now()) layer.weight.normal_(0, 0.02, build.random());
    return layer;
  }

  void make_positions() {
    if (o_.positions == nn::Positions::sine) positions_ = nn::sine_positions(grid_, grid_, o_.width, o_.position_scale).unsqueeze(0);
    if (o_.positions == nn::Positions::learned) positions_ = build_.normal("pos_embed", {1, grid_.count(), o_.width}, 0.02);
    if (o_.rotary) rotary_ = nn::rotary_table(grid_, grid_, o_.head());
  }

  std::optional<nn::RotaryTable> rotary_of(const nn::PatchGrid& grid, const at::Device& device) const {
    if (!o_.rotary) return {};
    const nn::RotaryTable table = grid == grid_ ? rotary_ : nn::rotary_table(grid, grid_, o_.head());
    return nn::RotaryTable{table.cosines.to(device), table.sines.to(device)};
  }

  /// Returns [B, N, C] of the patches of an image, row by row.
  Tensor patches(const Tensor& input, const nn::PatchGrid& grid) const {
    const Tensor x = flat() ? patch_(input).permute({0, 2, 3, 1}).reshape({input.size(0), grid.count(), o_.width})
                            : values_(nn::cut_patches(input, grid, patch_size_));
    if (o_.positions == nn::Positions::none) return x;
    const bool sine = o_.positions == nn::Positions::sine;
    const Tensor positions = grid == grid_ ? positions_
                             : sine        ? nn::sine_positions(grid, grid_, o_.width, o_.position_scale).unsqueeze(0)
                                           : nn::resized_positions(positions_, grid, grid_);
    return x + positions.to(x.options());
  }

  /// Embeds noise level, class, sizes and pooled vector, [B, C].
  Tensor embedding(const Tensor& c_noise, const Condition& condition, at::ScalarType dtype) const {
    const Tensor features = o_.noise_embedding->features(c_noise, frequencies_.to(c_noise.device(), at::kFloat)).to(dtype);
    Tensor c = noise_[1](nn::silu(noise_[0](features)));
    if (class_.defined()) {
      if (!condition.classes.defined()) throw std::logic_error("a class-conditional dit was given no classes");
      c = c + class_.index_select(0, condition.classes).to(dtype);
    }
    if (!sizes_.empty()) c = c + of_sizes(condition, dtype);
    if (vector_.empty()) return c;
    if (!condition.vector.defined()) throw std::logic_error("a dit that takes a pooled vector was given none");
    return c + vector_[1](nn::silu(vector_[0](condition.vector.to(dtype))));
  }

  /// Embeds height, width and their ratio, a third of the channels each (PixArt: Chen et al. 2024, sec. 2.3).
  Tensor of_sizes(const Condition& condition, at::ScalarType dtype) const {
    if (!condition.sizes.defined()) throw std::logic_error("a dit that takes the sizes of images was given none");
    const Tensor height = condition.sizes.select(1, 4), width = condition.sizes.select(1, 5);
    const Tensor frequencies = frequencies_.to(height.device(), at::kFloat);
    const auto third = [&](const Tensor& numbers, size_t first) {
      const Tensor features = o_.noise_embedding->features(numbers.to(at::kFloat), frequencies).to(dtype);
      return sizes_[first + 1](nn::silu(sizes_[first](features)));
    };
    return at::cat({third(height, 0), third(width, 0), third(height / width, 2)}, 1);
  }

  nn::Tokens tokens_of(const Condition& condition, at::ScalarType dtype) const {
    if (words_.empty()) return {};
    if (!condition.context.defined()) throw std::logic_error("a dit that takes tokens was given none");
    return {words_[1](nn::gelu_tanh(words_[0](condition.context.to(dtype)))), condition.context_mask};
  }

  /// Returns the mask of tokens and patches together; undefined if all are to be seen.
  static Tensor mask_of(const nn::Tokens& tokens, const nn::PatchGrid& grid) {
    if (!tokens.mask.defined()) return {};
    return at::cat({tokens.mask, at::ones({tokens.mask.size(0), grid.count()}, tokens.mask.options())}, 1);
  }

  Tensor run_blocks(Tensor x, const nn::DitState& state) const {
    std::vector<Tensor> kept;
    for (size_t i = 0; i < blocks_.size(); ++i) {
      const nn::DitBlock& block = blocks_[i];
      Tensor earlier;
      if (joins(int64_t(i))) earlier = kept.back(), kept.pop_back();
      const auto run = [&](Tensor in) { return block(std::move(in), earlier.defined() ? &earlier : nullptr, state); };
      if (o_.checkpoint && !state.taps && nn::Recomputation::possible() && i + 1 < blocks_.size())
        x = checkpointed(block, x, earlier, state);
      else
        x = state.taps ? state.taps->apply(block.name(), x, [&] { return run(x); }) : run(std::move(x));
      if (keeps(int64_t(i))) kept.push_back(state.taps ? state.taps->skip(block.name(), x) : x);
    }
    return x;
  }

  static Tensor checkpointed(const nn::DitBlock& block, const Tensor& x, const Tensor& earlier, const nn::DitState& state) {
    const nn::RotaryTable rotary = state.rotary ? *state.rotary : nn::RotaryTable{};
    return nn::recomputed(true, state.dropout, [=, &block](at::Generator* random) {
      nn::DitState own = state;
      own.dropout = random;
      if (own.rotary) own.rotary = &rotary;
      return block(x, earlier.defined() ? &earlier : nullptr, own);
    });
  }

  Tensor last_modulation(const Tensor& c) const {
    if (!last_table_.defined()) return last_modulation_(nn::silu(c));
    return at::cat({c, c}, 1) + last_table_.to(c.scalar_type()).reshape({1, -1});
  }

  Options o_;
  nn::Builder build_;
  int64_t image_channels_;
  nn::PatchSize patch_size_;
  nn::PatchGrid grid_;  ///< of the size that the network was made for
  nn::Conv2d patch_;
  nn::Linear values_;  ///< instead of patch_, for patches of signals and volumes, and for those that are no squares
  nn::Linear noise_[2];
  Tensor frequencies_, class_, positions_;
  std::vector<nn::Linear> vector_, words_, sizes_;
  std::optional<nn::Linear> all_;  ///< the six vectors of all blocks, adaLN-single
  nn::RotaryTable rotary_;
  std::vector<nn::DitBlock> blocks_;
  nn::TokenNorm norm_;
  nn::Linear last_modulation_, out_;
  Tensor last_table_;  ///< instead of last_modulation_, adaLN-single
};

}  // namespace

void register_network_dit(Registry& r) {
  r.add<Network, Dit>("dit", "the diffusion transformer, adaLN-Zero (DiT, SiT, LightningDiT, PixArt, U-ViT)");
}

}  // namespace brume::plugins
