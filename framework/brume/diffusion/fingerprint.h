#pragma once
// What tells one first stage from another.
#include <string>

#include "brume/core/autoencoder.h"

namespace brume {

/// "kl-" and 16 hexadecimal digits: a hash (FNV-1a, 64 bits) over names, shapes and float32 bytes of the weights. What scales the latents
/// afterwards is no part of it: cached moments are from before. `type`: how the configuration calls it; a checkpoint counts as what it
/// holds.
std::string fingerprint(const Autoencoder& autoencoder, const std::string& type);

}  // namespace brume
