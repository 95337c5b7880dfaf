// Discrete latents: the codes of a quantising first stage, one-hot.
//
//   latent = one_hot(k), [B, K, h, w],   k = argmin_k |z - e_k|^2
//
// Decoding takes the largest channel, so logits and probabilities decode as well. Moments are the first stage's.
#include <ATen/ops/argmax.h>
#include <fmt/format.h>

#include "brume/config/registry.h"
#include "brume/config/yaml.h"
#include "brume/core/autoencoder.h"
#include "brume/core/codes.h"
#include "brume/numerics/code_chain.h"

namespace brume::plugins {
namespace {

class Codes final : public Autoencoder {
 public:
  struct Options {
    Deferred<Autoencoder> first_stage;
    void declare(Fields& f) { f.field("first_stage", first_stage, "the autoencoder with a codebook, mostly a checkpoint of one", "vq"); }
  };
  static void check(const Options& o, const Context& context) { o.first_stage.check(context); }

  Codes(const Options& o, const Context& context)
      : inner_(o.first_stage.make(context)), quantiser_(dynamic_cast<const Quantiser*>(inner_.get())) {
    if (!quantiser_ || !inner_->codes())
      throw ConfigError(fmt::format("first_stage: {} has no codebook; take vq, or a checkpoint of one", o.first_stage.type()));
  }

  ImageShape latent(const ImageShape& image) const override {
    ImageShape shape = inner_->latent(image);
    shape.channels = *inner_->codes();
    return shape;
  }
  ImageShape moments(const ImageShape& image) const override { return inner_->moments(image); }
  Tensor encode_moments(const Tensor& images) const override { return inner_->encode_moments(images); }
  Tensor latents_of(const Tensor& moments, const Normal&) const override {
    return one_hot(quantiser_->codes_of(moments), *inner_->codes(), at::kFloat);
  }
  Tensor decode(const Tensor& latents) const override { return quantiser_->decode_codes(latents.argmax(1)); }
  int64_t decoding_memory(const ImageShape& image) const override { return inner_->decoding_memory(image); }
  std::vector<Weight> weights() const override { return inner_->weights(); }
  std::optional<int64_t> codes() const override { return inner_->codes(); }

  std::optional<std::string> stored_as() const override {
    const auto stored = inner_->stored_as();
    if (!stored) return {};
    Value root = Value::map();
    root.set("type", Value::text("codes"));
    root.set("first_stage", parse_yaml(*stored, "first_stage"));
    return dump_yaml(root);
  }

 private:
  std::shared_ptr<Autoencoder> inner_;
  const Quantiser* quantiser_;
};

}  // namespace

void register_autoencoder_codes(Registry& r) {
  r.add<Autoencoder, Codes>("codes", "one-hot codes of a first stage with a codebook, for discrete diffusion");
}

}  // namespace brume::plugins
