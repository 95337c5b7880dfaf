#include "support/tiny_sd.h"
#include "support/flow.h"

#include <fmt/format.h>

#include "brume/config/yaml.h"
#include "brume/interop/import/diffusers_unet.h"
#include "brume/interop/layouts/diffusers_vae.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"
#include "support/refs.h"
#include "support/registry.h"

namespace brume::test {
namespace {

std::string part(const std::string& name) { return ref_path("pipe/tiny_sd/" + name).string(); }

/// The weights of a part of a model, without that part's name.
std::vector<Weight> of(const std::string& prefix, const std::vector<Weight>& weights) {
  std::vector<Weight> found;
  for (const Weight& w : weights)
    if (w.name.starts_with(prefix)) found.push_back({w.name.substr(prefix.size()), w.tensor, w.trainable});
  return found;
}

}  // namespace

Config tiny_sd_config(const std::string& sample) {
  const DiffusersUnet unet = read_diffusers_unet(part("unet/config.json"));
  const std::string yaml = fmt::format(
      "model:\n"
      "  image: {{channels: 3, height: 32, width: 32}}\n"
      "  autoencoder: {{type: kl, channels: 32, multipliers: [1, 2], blocks: 1, latent_channels: 4, scale: 0.18215}}\n"
      "  network: {}\n"
      "  conditioner: {{type: clip_text, tokenizer: {}, weights: {}, width: 32, depth: 2, heads: 4, mlp: 64}}\n"
      "  noise: {{type: scaled_linear, beta_start: 0.00085, beta_end: 0.012}}\n"
      "sample:\n"
      "  sampler: ddim\n"
      "  spacing: {{type: leading, offset: 1, final: minimum}}\n"
      "  steps: 10\n"
      "  noise_order: batch\n"
      "  guidance: [{{type: cfg, scale: 7.5}}]\n{}",
      flow(unet.options()), part("tokenizer"), part("text_encoder/model.safetensors"), sample.empty() ? "" : "  " + sample + "\n");
  Registry registry = builtins();
  return read_configuration(registry, parse_yaml(yaml, "tiny_sd.yaml"));
}

std::unique_ptr<Pipeline> tiny_sd(const Config& config) {
  auto pipeline = std::make_unique<Pipeline>(config.model, Compute{});
  const std::vector<Weight> weights = pipeline->weights();
  const auto file = [](const std::string& name) { return load_tensors(part(name + "/diffusion_pytorch_model.safetensors")); };
  load_weights("unet", read_diffusers_unet(part("unet/config.json")).tensors(file("unet")), of("network.", weights));
  load_weights("vae", from_diffusers_vae(file("vae")), of("autoencoder.", weights));
  return pipeline;
}

}  // namespace brume::test
