// A multilayer perceptron with residual blocks, for points and small vectors: an image is the list of its numbers.
//
//   h = W x,   h <- h + W2 silu(W1 layer_norm(h) + E e),   F = W layer_norm(h),   e = mlp(noise level) + class + mlp(vector)
//
// With `fourier` the first layer also sees cos(B x) and sin(B x), B ~ N(0, fourier_scale^2) drawn once (Tancik et al. 2020, "Fourier
// Features Let Networks Learn High Frequency Functions in Low Dimensional Domains", eq. 5, without its 2 pi): without them a network of
// points learns what changes within a fraction of the unit late or never.
//
// It is the network of two-dimensional examples, as those of Xiao et al. (2022, app. B.2); for pictures take a U-Net or a transformer.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include "brume/config/registry.h"
#include "brume/core/network.h"
#include "brume/nn/blocks/layers.h"
#include "brume/nn/blocks/recompute.h"
#include "brume/nn/ops/ops.h"
#include "brume/numerics/waves.h"

namespace brume::plugins {
namespace {

class Mlp final : public Network {
 public:
  struct Options {
    int64_t width = 256, blocks = 3, noise_width = 64, fourier = 0;
    double fourier_scale = 4;
    bool zero_init = true, checkpoint = false;
    std::shared_ptr<const NoiseEmbedding> noise_embedding;
    void declare(Fields& f) {
      f.field("width", width, "of the hidden layers", within(1, 65536));
      f.field("blocks", blocks, "residual blocks", within(1, 1000));
      f.field("noise_width", noise_width, "features of the noise level", within(2, 65536));
      f.field("fourier", fourier, "random cosines and as many sines of the image's numbers, further inputs; 0 = none", within(0, 65536));
      f.field("fourier_scale", fourier_scale, "standard deviation of their frequencies, in radians per unit of the input", more_than(0));
      f.unused(fourier == 0, "fourier_scale", "fourier is 0");
      f.field("zero_init", zero_init, "the last layer starts as zero");
      nn::declare_checkpoint(f, checkpoint);
      f.field("noise_embedding", noise_embedding, "features of the noise level", "sinusoidal");
      f.require(noise_width % 2 == 0, "noise_width", "must be even");
    }
  };
  static void check(const Options&, const Context& c) { check_condition("mlp", {.classes = true, .image = true, .vector = true}, c); }

  Mlp(const Options& o, const Context& c) : o_(o), outputs_(c.out_channels), build_(c.seed) {
    frequencies_ = o.noise_embedding->frequencies(o.noise_width, build_.random());
    if (o.noise_embedding->random()) frequencies_ = build_.buffer("noise_frequencies", frequencies_);
    noise_[0] = build_["noise"].linear("0", o.noise_width, o.width);
    noise_[1] = build_["noise"].linear("2", o.width, o.width);
    if (c.classes > 0) class_ = build_.embedding("class", c.classes, o.width);
    vector_width_ = c.vector_width;
    if (c.vector_width > 0) vector_[0] = build_["vector"].linear("0", c.vector_width, o.width);
    if (c.vector_width > 0) vector_[1] = build_["vector"].linear("2", o.width, o.width);
    const int64_t pixels = c.input.height * c.input.width;
    const int64_t numbers = (c.input.channels + c.image_channels) * pixels;
    if (o.fourier > 0) {
      const at::TensorOptions real = at::TensorOptions().dtype(at::kFloat);
      waves_.weight = build_.buffer("input_frequencies", at::randn({o.fourier, numbers}, build_.random(), real) * o.fourier_scale);
    }
    in_ = build_.linear("in", numbers + 2 * o.fourier, o.width);
    for (int64_t i = 0; i < o.blocks; ++i) {
      const nn::Builder block = build_["blocks"][i];
      blocks_.push_back({block.layer_norm("norm", o.width), block.linear("in", o.width, o.width),
                         block.linear("embedding", o.width, o.width, false), block.linear("out", o.width, o.width)});
    }
    out_norm_ = build_.layer_norm("out_norm", o.width);
    out_ = build_.linear("out", o.width, c.out_channels * pixels);
    if (o.zero_init) out_ = nn::zeroed(out_);
  }

  NoiseQuantity quantity() const override { return o_.noise_embedding->quantity(); }
  std::vector<Weight> weights() const override { return build_.weights(); }

  Tensor forward(const Tensor& input, const Tensor& c_noise, const Condition& condition, at::Generator*, const Taps&) const override {
    const at::ScalarType type = input.scalar_type();
    // The rows of one image in training: one matrix product per layer. Elsewhere each image alone, whose bits do not depend on the batch.
    const auto rows = [](const Tensor& t) { return at::GradMode::is_enabled() ? t.unsqueeze(0) : t; };
    const Tensor features = rows(o_.noise_embedding->features(c_noise, frequencies_.to(c_noise.device(), at::kFloat)).to(type));
    Tensor e = noise_[1](nn::silu(noise_[0](features)));
    if (class_.weight.defined()) e = e + class_(condition.classes.to(input.device())).to(type);
    if (vector_width_ > 0) e = e + vector_[1](nn::silu(vector_[0](rows(condition.vector.to(input.device(), type)))));
    e = nn::silu(e);
    const Tensor x = input.flatten(1);
    Tensor h = in_(with_waves(rows(condition.image.defined() ? at::cat({x, condition.image.to(type).flatten(1)}, 1) : x)));
    for (const Block& b : blocks_)
      h = nn::recomputed(o_.checkpoint && &b != &blocks_.back(), nullptr,
                         [=, &b](at::Generator*) { return h + b.out(nn::silu(b.in(b.norm(h)) + b.embedding(e))); });
    return out_(out_norm_(h)).view({input.size(0), outputs_, input.size(2), input.size(3)});
  }

 private:
  /// Returns x [..., numbers] and the cosines and sines of it.
  Tensor with_waves(const Tensor& x) const {
    if (!waves_.weight.defined()) return x;
    const Tensor angles = nn::linear(x.to(at::kFloat), waves_.weight.to(x.device(), at::kFloat), {});
    const auto [cosines, sines] = at::GradMode::is_enabled() ? std::pair(angles.cos(), angles.sin()) : cos_sin(angles);
    return at::cat({x, cosines.to(x.scalar_type()), sines.to(x.scalar_type())}, -1);
  }

  struct Block {
    nn::LayerNorm norm;
    nn::Linear in, embedding, out;
  };
  Options o_;
  int64_t outputs_, vector_width_ = 0;
  nn::Builder build_;
  Tensor frequencies_;
  nn::Linear noise_[2], vector_[2], waves_, in_, out_;
  nn::Embedding class_;
  std::vector<Block> blocks_;
  nn::LayerNorm out_norm_;
};

}  // namespace

void register_network_mlp(Registry& r) { r.add<Network, Mlp>("mlp", "a multilayer perceptron, for points and small vectors"); }

}  // namespace brume::plugins
