// The vector-quantised autoencoder of latent diffusion (Rombach et al. 2022, sec. 3.1 and app. G; VQGAN, Esser et al. 2021): the encoder
// and decoder of `kl`, and between them a codebook (nn/blocks/codebook.h).
//
//   z = encoder(x),   q(z) = the nearest codes,   x' = decoder(q(z)),   latent = scale (z - shift)
//
// Latents for diffusion are taken before quantisation, which counts as the decoder's first layer; `codes` makes discrete ones.
#include <ATen/TensorOperators.h>

#include "brume/config/registry.h"
#include "brume/core/autoencoder.h"
#include "brume/core/codes.h"
#include "brume/nn/blocks/codebook.h"
#include "brume/nn/blocks/first_stage.h"
#include "brume/nn/blocks/latent_shape.h"

namespace brume::plugins {
namespace {

class Vq final : public Autoencoder, public Quantiser {
 public:
  struct Options : nn::FirstStageOptions {
    nn::CodebookOptions codebook;
    double scale = 1, shift = 0;
    void declare(Fields& f) {
      nn::FirstStageOptions::declare(f);
      codebook.declare(f);
      f.field("scale", scale, "factor that gives the latents unit variance; measured at every checkpoint of its training", more_than(0));
      f.field("shift", shift, "mean of the latents before scaling");
    }
  };
  static void check(const Options& o, const Context& context) { o.nn::FirstStageOptions::check(context.image); }

  Vq(const Options& o, const Context& context)
      : o_(o),
        dtype_(context.dtype),
        build_(context.seed),
        network_(build_, o, context.image, o.latent_channels),
        codebook_(build_["quantize"], o.codebook, o.latent_channels) {}

  ImageShape latent(const ImageShape& image) const override { return nn::latent_shape(image, o_.latent_channels, o_.ratio()); }
  std::vector<Weight> weights() const override { return build_.weights(); }
  int64_t decoding_memory(const ImageShape& image) const override { return o_.decoding_memory(image, dtype_); }
  Tensor last_layer() const override { return network_.last_layer(); }
  std::optional<int64_t> codes() const override { return o_.codebook.codes; }

  /// Returns what is quantised, before scaling.
  Tensor encode_moments(const Tensor& images) const override { return network_.encode(images.to(dtype_), nullptr).to(at::kFloat); }
  Tensor latents_of(const Tensor& moments, const Normal&) const override { return (moments.to(at::kFloat) - o_.shift) * o_.scale; }
  Tensor decode(const Tensor& latents) const override {
    return decode_codes(codebook_.nearest(latents.to(at::kFloat) / o_.scale + o_.shift));
  }
  Tensor codes_of(const Tensor& moments) const override { return codebook_.nearest(moments.to(at::kFloat)); }
  Tensor decode_codes(const Tensor& codes) const override {
    return network_.decode(codebook_.vectors(codes).to(dtype_), nullptr).to(at::kFloat);
  }

  Reconstruction reconstruct(const Tensor& images, at::Generator& random) const override {
    const Tensor z = network_.encode(images, &random).to(at::kFloat);
    const nn::Codebook::Quantised q = codebook_.quantise(z);
    return {network_.decode(q.z.to(images.scalar_type()), &random), q.loss, z};
  }
  void updated(int64_t, at::Generator& random) const override { codebook_.update(random); }

 private:
  Options o_;
  at::ScalarType dtype_;
  nn::Builder build_;
  nn::FirstStageNetwork network_;
  nn::Codebook codebook_;
};

}  // namespace

void register_autoencoder_vq(Registry& r) { r.add<Autoencoder, Vq>("vq", "the vector-quantised autoencoder of latent diffusion (VQGAN)"); }

}  // namespace brume::plugins
