// The KL-regularised autoencoder of latent diffusion (Rombach et al. 2022, sec. 3.1 and app. G), a variational autoencoder (Kingma &
// Welling 2014) of little weight on its prior:
//
//   q(z | x) = N(mean(x), exp(logvar(x))),   z = mean + exp(logvar / 2) noise
//   KL(q || N(0, 1)) = 1/2 sum (mean^2 + exp(logvar) - 1 - logvar)        summed over a latent, averaged over the images
//   latent = scale (z - shift - mean_c) / std_c                               mean_c, std_c per channel, if given (Playground v2.5, EDM2)
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/autoencoder.h"
#include "brume/nn/blocks/first_stage.h"
#include "brume/nn/blocks/latent_shape.h"

namespace brume::plugins {
namespace {

class Kl final : public Autoencoder {
 public:
  struct Options : nn::FirstStageOptions {
    double kl_weight = 1e-6, scale = 1, shift = 0;
    std::vector<double> means{}, stds{};
    void declare(Fields& f) {
      nn::FirstStageOptions::declare(f);
      f.field("kl_weight", kl_weight, "weight of the KL term, a sum over a latent", at_least(0));
      f.field("scale", scale, "factor that gives the latents unit variance; measured at every checkpoint of its training", more_than(0));
      f.field("shift", shift, "mean of the latents before scaling");
      f.field("means", means, "what is subtracted from each channel of the latents, in addition to shift; empty = 0");
      f.field("stds", stds, "what each channel of the latents is divided by before scaling; empty = 1", more_than(0));
      for (const auto& [name, each] : {std::pair("means", &means), std::pair("stds", &stds)})
        f.require(each->empty() || int64_t(each->size()) == latent_channels, name, "needs one number per channel of a latent",
                  fmt::format("{}, and latents have {}", counted(each->size(), "number"), counted(latent_channels, "channel")));
    }
  };
  static void check(const Options& o, const Context& context) { o.nn::FirstStageOptions::check(context.image); }

  Kl(const Options& o, const Context& context)
      : o_(o), dtype_(context.dtype), build_(context.seed), network_(build_, o, context.image, 2 * o.latent_channels) {
    if (!o.means.empty()) means_ = per_channel(o.means);
    if (!o.stds.empty()) stds_ = per_channel(o.stds);
  }

  ImageShape latent(const ImageShape& image) const override { return nn::latent_shape(image, o_.latent_channels, o_.ratio()); }
  ImageShape moments(const ImageShape& image) const override { return nn::latent_shape(image, 2 * o_.latent_channels, o_.ratio()); }
  std::vector<Weight> weights() const override { return build_.weights(); }
  int64_t decoding_memory(const ImageShape& image) const override { return o_.decoding_memory(image, dtype_); }
  Tensor last_layer() const override { return network_.last_layer(); }

  /// Returns mean and log variance, each [B, latent_channels, h, w], one after the other.
  Tensor encode_moments(const Tensor& images) const override { return moments_of(images.to(dtype_), nullptr); }
  Tensor latents_of(const Tensor& moments, const Normal& normal) const override {
    Tensor z = drawn(moments.to(at::kFloat), normal) - o_.shift;
    if (means_.defined()) z = z - means_.to(z.device());
    if (stds_.defined()) z = z / stds_.to(z.device());
    return z * o_.scale;
  }
  Tensor decode(const Tensor& latents) const override {
    Tensor z = latents.to(at::kFloat) / o_.scale;
    if (stds_.defined()) z = z * stds_.to(z.device());
    if (means_.defined()) z = z + means_.to(z.device());
    z = z + o_.shift;
    return network_.decode(z.to(dtype_), nullptr).to(at::kFloat);
  }

  Reconstruction reconstruct(const Tensor& images, at::Generator& random) const override {
    const Tensor moments = moments_of(images, &random);
    const Tensor mean = moments.narrow(1, 0, o_.latent_channels), logvar = moments.narrow(1, o_.latent_channels, o_.latent_channels);
    const Tensor kl = (mean * mean + logvar.exp() - 1 - logvar).sum() * (0.5 / double(images.size(0)));
    const Tensor z = drawn(moments, normal_of(&random));
    return {network_.decode(z.to(images.scalar_type()), &random), kl * o_.kl_weight, z};
  }

 private:
  /// In float32, the log variance within what its exponential bears.
  Tensor moments_of(const Tensor& images, at::Generator* dropout) const {
    const Tensor h = wide(network_.encode(images, dropout));
    return at::cat({h.narrow(1, 0, o_.latent_channels), h.narrow(1, o_.latent_channels, o_.latent_channels).clamp(-30, 20)}, 1);
  }
  Tensor drawn(const Tensor& moments, const Normal& normal) const {
    const Tensor mean = moments.narrow(1, 0, o_.latent_channels);
    if (!normal) return mean;
    return mean + (moments.narrow(1, o_.latent_channels, o_.latent_channels) * 0.5).exp() * normal(mean);
  }
  static Tensor per_channel(const std::vector<double>& values) {
    return at::tensor(values, at::TensorOptions().dtype(at::kFloat)).view({1, -1, 1, 1});
  }
  static Tensor wide(const Tensor& t) { return t.scalar_type() == at::kDouble ? t : t.to(at::kFloat); }

  Options o_;
  at::ScalarType dtype_;
  Tensor means_, stds_;  ///< [1, C, 1, 1]; undefined = 0 and 1
  nn::Builder build_;
  nn::FirstStageNetwork network_;
};

}  // namespace

void register_autoencoder_kl(Registry& r) {
  r.add<Autoencoder, Kl>("kl", "the KL-regularised autoencoder of latent diffusion and Stable Diffusion");
}

}  // namespace brume::plugins
