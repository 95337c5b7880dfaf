#pragma once
// The TAESD family (madebyollin/taesd): encoder and decoder as two files of numbered layers, or both in one, under the published names
// or those of diffusers' AutoencoderTiny, whose decoder counts from the layer after the tanh.
#include <optional>
#include <string>

#include "brume/config/value.h"
#include "brume/interop/import/diffusers_config.h"
#include "brume/weights/tensors.h"

namespace brume {

/// Both halves: "encoder.0.weight", "decoder.1.weight" and so on, as brume's `tiny` has them.
struct TinyAutoencoder {
  NamedTensors tensors;
  int64_t latent_channels = 4, width = 64;
  bool middle_norm = false;
  /// Returns the options of `tiny`. `encoder` and `decoder` name the files that the weights came from.
  Value options(const std::string& encoder, const std::string& decoder, double scale, double shift) const;
};

enum class TinyHalf { encoder, decoder };
/// Returns which half these numbered layers are, or nothing.
std::optional<TinyHalf> tiny_half(const NamedTensors& tensors);
/// Returns true for both halves in one file ("encoder.…", "decoder.…"), whichever of the two ways its layers are named.
bool is_tiny_pair(const NamedTensors& tensors);

TinyAutoencoder tiny_of_halves(const NamedTensors& encoder, const NamedTensors& decoder);
TinyAutoencoder tiny_of_pair(const NamedTensors& both);

/// Throws ConfigError naming what an AutoencoderTiny's config.json asks for that `tiny` cannot be.
void check_diffusers_tiny(const DiffusersConfig& config);

}  // namespace brume
