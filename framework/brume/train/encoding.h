#pragma once
// Moments of a whole data set, made once.
#include <filesystem>
#include <functional>

#include "brume/core/autoencoder.h"

namespace brume {

struct EncodingOptions {
  int64_t count = 0;                  ///< images; 0 = all of a set that ends
  int64_t batch = 32, shard = 16384;  ///< images at once, and in a file
  bool half = false;                  ///< float16 instead of float32
  int64_t tile = 0;                   ///< pixels of the pieces that large images are encoded in; 0 = whole
};

/// Writes shards and then their index into `folder`, which has no index yet; returns the number of images in them. Leaves out images that
/// cannot be read if the set does (ImageFiles::skips_errors). `fingerprint`: of the first stage. `progress` receives how many images of how
/// many are done; if it returns false, what was written is removed, and Interrupted thrown.
int64_t encode_set(const Autoencoder& autoencoder, const std::string& fingerprint, at::Device device, const Dataset& data,
                   const ImageShape& image, const std::filesystem::path& folder, const EncodingOptions& options,
                   const std::function<bool(int64_t done, int64_t count)>& progress);

}  // namespace brume
