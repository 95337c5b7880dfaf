// A first stage out of a checkpoint that `brume train` made of an `autoencoder:` configuration, frozen. A model trained on top of it
// holds it whole: its own checkpoint names the first stage as that one did.
#include <filesystem>

#include "brume/config/registry.h"
#include "brume/core/autoencoder.h"
#include "brume/core/codes.h"

namespace brume::plugins {
namespace {

class Checkpoint final : public Autoencoder, public Quantiser {
 public:
  struct Options {
    std::filesystem::path path;
    void declare(Fields& f) { f.field("path", path, "model.safetensors of an autoencoder"); }
  };
  static void check(const Options& o, const Context&) {
    if (o.path.empty()) throw ConfigError("path: the checkpoint of an autoencoder is missing");
  }
  Checkpoint(const Options& o, const Context& context)
      : opened_(context.models->first_stage(o.path.string(), context.image, context.dtype)) {}

  ImageShape latent(const ImageShape& image) const override { return opened_.autoencoder->latent(image); }
  ImageShape moments(const ImageShape& image) const override { return opened_.autoencoder->moments(image); }
  Tensor encode_moments(const Tensor& images) const override { return opened_.autoencoder->encode_moments(images); }
  Tensor latents_of(const Tensor& moments, const Normal& normal) const override { return opened_.autoencoder->latents_of(moments, normal); }
  Tensor decode(const Tensor& latents) const override { return opened_.autoencoder->decode(latents); }
  int64_t decoding_memory(const ImageShape& image) const override { return opened_.autoencoder->decoding_memory(image); }
  std::vector<Weight> weights() const override { return opened_.autoencoder->weights(); }
  std::optional<std::string> stored_as() const override { return opened_.configuration; }
  std::optional<int64_t> codes() const override { return opened_.autoencoder->codes(); }
  Tensor codes_of(const Tensor& moments) const override { return quantiser().codes_of(moments); }
  Tensor decode_codes(const Tensor& codes) const override { return quantiser().decode_codes(codes); }

 private:
  const Quantiser& quantiser() const {
    const auto* quantiser = dynamic_cast<const Quantiser*>(opened_.autoencoder.get());
    if (!quantiser) throw ConfigError("the first stage has no codebook");
    return *quantiser;
  }
  FirstStage opened_;
};

}  // namespace

void register_autoencoder_checkpoint(Registry& r) {
  r.add<Autoencoder, Checkpoint>("checkpoint", "a first stage trained by brume, out of its checkpoint");
}

}  // namespace brume::plugins
