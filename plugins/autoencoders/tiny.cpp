// The tiny autoencoders of the TAESD family (Bohan 2023, "TAESD: Tiny AutoEncoder for Stable Diffusion"): plain convolutions, no
// normalisation but in the blocks at the lowest resolution of the newer ones. 8 x 8 pixels become one latent.
//
//   block(x) = relu(conv relu conv relu conv (x) + x),   with `middle_norm` of x + pool(x),  pool = conv1x1 relu norm conv1x1
//   latent = scale (encode((image + 1) / 2) - shift),   image = 2 decode(3 tanh(z / 3)) - 1,  z = latent / scale + shift
//
// Its weights are somebody else's: `encoder` and `decoder` name the published files. A checkpoint of a latent model holds them.
#include <ATen/TensorOperators.h>
#include <ATen/ops/tanh.h>
#include <fmt/format.h>

#include <filesystem>

#include "brume/config/registry.h"
#include "brume/core/autoencoder.h"
#include "brume/core/seed.h"
#include "brume/nn/blocks/latent_shape.h"
#include "brume/nn/blocks/layers.h"
#include "brume/nn/ops/ops.h"
#include "brume/weights/model_weights.h"

namespace brume::plugins {
namespace {

constexpr int64_t ratio = 8;

class Block {
 public:
  Block(const nn::Builder& build, int64_t width, bool norm) {
    for (int i = 0; i < 3; ++i) convs_[i] = build["conv"].conv2d(std::to_string(2 * i), width, width, 3);
    if (!norm) return;
    widen_ = build["pool"].conv2d("0", width, 4 * width, 1, 1, false);
    norm_ = build["pool"].group_norm("1", 4 * width, 4);
    narrow_ = build["pool"].conv2d("3", 4 * width, width, 1, 1, false);
  }
  Tensor operator()(Tensor x) const {
    if (widen_.weight.defined()) {
      const Tensor wide = nn::relu(norm_(widen_(x)));
      x = narrow_.onto(std::move(x), wide);
    }
    const Tensor h = nn::relu(convs_[1](nn::relu(convs_[0](x))));
    return nn::relu(convs_[2].onto(std::move(x), h));
  }

 private:
  nn::Conv2d convs_[3], widen_, narrow_;
  nn::GroupNorm norm_;
};

/// One layer of a sequence, in the published numbering.
struct Layer {
  std::optional<nn::Conv2d> conv;
  std::optional<Block> block;
  bool up = false, relu = false;
  Tensor operator()(const Tensor& x) const {
    if (conv) return relu ? nn::relu((*conv)(x)) : (*conv)(x);
    return up ? nn::upsample(x) : (*block)(x);
  }
};

class Tiny final : public Autoencoder {
 public:
  struct Options {
    std::filesystem::path encoder, decoder;
    int64_t latent_channels = 4, width = 64;
    bool middle_norm = false;
    double scale = 1, shift = 0;
    void declare(Fields& f) {
      f.field("encoder", encoder, "weights of the encoder: .safetensors or .pth");
      f.field("decoder", decoder, "weights of the decoder");
      f.field("latent_channels", latent_channels, "channels of a latent: 4 (SD), 16 (SD3, FLUX), 32 (FLUX.2)", within(1, 1024));
      f.field("width", width, "channels of its convolutions", within(1, 4096));
      f.field("middle_norm", middle_norm, "group norm in the blocks at the lowest resolution (taef2)");
      f.field("scale", scale, "factor that gives the latents unit variance", more_than(0));
      f.field("shift", shift, "mean of the latents before scaling");
    }
  };
  static void check(const Options& o, const Context& context) {
    if (o.encoder.empty() || o.decoder.empty()) throw ConfigError("encoder and decoder: the files of their weights are missing");
    if (context.image.channels != 3) throw ConfigError(fmt::format("takes RGB images, and model.image is {}", context.image.text()));
    nn::latent_shape(context.image, o.latent_channels, ratio);
  }

  Tiny(const Options& o, const Context& context) : o_(o), dtype_(context.dtype) {
    const nn::Builder encoder(mix_seed(context.seed, 0)), decoder(mix_seed(context.seed, 1));
    make_encoder(encoder);
    make_decoder(decoder);
    load(encoder, o.encoder, "encoder", context.stored);
    load(decoder, o.decoder, "decoder", context.stored);
  }
  ImageShape latent(const ImageShape& image) const override { return nn::latent_shape(image, o_.latent_channels, ratio); }
  Tensor encode_moments(const Tensor& images) const override { return encoded((images.to(at::kFloat) + 1) * 0.5, dtype_); }
  Tensor latents_of(const Tensor& moments, const Normal&) const override { return (moments - o_.shift) * o_.scale; }
  Tensor decode(const Tensor& latents) const override { return decoded(latents.to(at::kFloat) / o_.scale + o_.shift, dtype_); }

  std::vector<Weight> weights() const override { return weights_; }

 private:
  /// images in [0, 1].
  Tensor encoded(const Tensor& images, at::ScalarType dtype) const {
    Tensor h = images.to(dtype);
    for (const Layer& layer : encoder_) h = layer(h);
    return h.to(at::kFloat);
  }
  Tensor decoded(const Tensor& z, at::ScalarType dtype) const {
    Tensor h = ((z / 3).tanh() * 3).to(dtype);
    for (const Layer& layer : decoder_) h = layer(h);
    return h.to(at::kFloat) * 2 - 1;
  }

  /// Returns a layer by its published index; blocks may be at the lowest resolution.
  static Layer block(const nn::Builder& build, int64_t at, int64_t width, bool norm) { return {{}, Block(build[at], width, norm)}; }
  static Layer conv(const nn::Builder& build, int64_t at, int64_t in, int64_t out, int64_t stride = 1, bool bias = true) {
    return {build.conv2d(std::to_string(at), in, out, 3, stride, bias), {}};
  }

  void make_encoder(const nn::Builder& build) {
    const int64_t w = o_.width;
    encoder_.push_back(conv(build, 0, 3, w));
    encoder_.push_back(block(build, 1, w, false));
    for (int64_t level = 0, at = 2; level < 3; ++level) {
      encoder_.push_back(conv(build, at++, w, w, 2, false));
      for (int i = 0; i < 3; ++i) encoder_.push_back(block(build, at++, w, o_.middle_norm && level == 2));
    }
    encoder_.push_back(conv(build, 14, w, o_.latent_channels));
  }

  void make_decoder(const nn::Builder& build) {  // 0 is the tanh, 2 a relu
    const int64_t w = o_.width;
    decoder_.push_back(conv(build, 1, o_.latent_channels, w));
    decoder_.back().relu = true;
    for (int64_t level = 0, at = 3; level < 3; ++level) {
      for (int i = 0; i < 3; ++i) decoder_.push_back(block(build, at++, w, o_.middle_norm && level == 0));
      decoder_.push_back({{}, {}, true});
      decoder_.push_back(conv(build, ++at, w, w, 1, false));
      ++at;
    }
    decoder_.push_back(block(build, 18, w, false));
    decoder_.push_back(conv(build, 19, w, 3));
  }

  void load(const nn::Builder& build, const std::filesystem::path& file, const std::string& part, bool stored) {
    if (!stored) load_weights(file.string(), build.weights());
    for (const Weight& w : build.weights()) weights_.push_back({part + "." + w.name, w.tensor, false});
  }

  Options o_;
  at::ScalarType dtype_;
  std::vector<Layer> encoder_, decoder_;
  std::vector<Weight> weights_;
};

}  // namespace

void register_autoencoder_tiny(Registry& r) {
  r.add<Autoencoder, Tiny>("tiny", "the TAESD family: published weights, 8 x 8 pixels per latent");
}

}  // namespace brume::plugins
