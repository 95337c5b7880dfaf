#pragma once
// Trainings of seconds: a classifier and an autoencoder of drawn forms.
#include <string>

namespace brume::test {

inline const std::string small_classifier = R"(
classifier:
  image: {channels: 1, height: 16, width: 16}
  network: {type: unet_encoder, channels: 16, multipliers: [1, 2], blocks: 1, groups: 4, heads: 2, middle_attention: false, dropout: 0.1}
  classes: 5
  noise: {schedule: cosine}
train:
  data: {type: shapes, label: form}
compute: {precision: fp32, threads: 1}
)";

inline const std::string small_autoencoder = R"(
autoencoder:
  image: {channels: 1, height: 16, width: 16}
  network: {type: kl, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, latent_channels: 2}
train:
  data: {type: shapes}
  preview: {count: 0}
compute: {precision: fp32, threads: 1}
)";

}  // namespace brume::test
