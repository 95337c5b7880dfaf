#pragma once
// What the tests of first stages share: a tiny one on grey shapes, and a diffusion model on top of it.
#include "brume/diffusion/model_files.h"
#include "train/classifier_support.h"

namespace brume::test {

inline constexpr const char* grey_shapes = "{type: shapes, rotation: 0, position: 0.2, backgrounds: [dark]}";

/// `network`: further keys of it; `train`: of the training.
inline std::string tiny_autoencoder(int64_t steps, const std::string& network = "", const std::string& train = "") {
  return fmt::format(
      "autoencoder:\n"
      "  image: {{channels: 1, height: 16, width: 16}}\n"
      "  network: {{type: kl, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, latent_channels: 2, kl_weight: 1.0e-4{}}}\n"
      "train:\n"
      "  data: {}\n"
      "  optimizer: {{type: adamw, lr: 0.004, warmup: 10}}\n"
      "  batch: 8\n  steps: {}\n  ema: {{decay: 0.9}}\n  log_every: 5\n  latents: {{images: 64}}\n  preview: {{count: 4}}\n{}"
      "compute: {{precision: fp32, threads: 1}}\n",
      network, grey_shapes, steps, train);
}

/// A diffusion model on the latents of a checkpoint.
inline std::string tiny_latent_model(const std::string& autoencoder, const std::string& data = grey_shapes, int64_t steps = 4) {
  return fmt::format(
      "model:\n"
      "  image: {{channels: 1, height: 16, width: 16}}\n"
      "  autoencoder: {{type: checkpoint, path: {}}}\n"
      "  network: {{type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, heads: 2, attention_resolutions: []}}\n"
      "  noise: cosine\n  parameterization: v\n"
      "train:\n"
      "  data: {}\n  batch: 4\n  steps: {}\n  preview: {{count: 2, steps: 2}}\n  log_every: 1\n"
      "sample: {{steps: 3}}\n"
      "compute: {{precision: fp32, threads: 1}}\n",
      autoencoder, data, steps);
}

inline void train_latent_model(const std::string& yaml, const std::string& folder) {
  const ReadConfig read(yaml);
  const ModelFiles files(read.registry, resolve_compute(read.config.compute), "");
  Trainer trainer(read.config, read.resolved, folder, {}, files);
  trainer.run(nullptr);
}

}  // namespace brume::test
