#pragma once
// What tells one first stage from another.
#include <string>
#include <vector>

#include "brume/core/autoencoder.h"
#include "brume/core/files.h"

namespace brume {

/// Returns "kl-" and 16 hexadecimal digits: a hash (FNV-1a, 64 bits) over names, shapes and float32 bytes of the weights. What scales the
/// latents afterwards is no part of it: cached moments are from before. `type`: how the configuration calls it; a checkpoint counts as what
/// it holds.
std::string fingerprint(const Autoencoder& autoencoder, const std::string& type);

/// Returns the same of any weights, and of the files that they are used with.
std::string fingerprint(const std::string& name, const std::vector<Weight>& weights, const Files& files = {});

}  // namespace brume
