#pragma once
// Moments of a whole data set, made once.
#include <filesystem>
#include <functional>

#include "brume/core/autoencoder.h"
#include "brume/distributed/world.h"

namespace brume {

struct EncodingOptions {
  int64_t count = 0;                  ///< images; 0 = all of a set that ends
  int64_t batch = 32, shard = 16384;  ///< images at once, and in a file
  bool half = false;                  ///< float16 instead of float32
  int64_t tile = 0;                   ///< pixels of the pieces that large images are encoded in; 0 = whole
  WorldPlace place{};                 ///< which process of a job this one is: it makes its part of the shards
  bool missing = false;               ///< keeps the shards that the folder has; ConfigError if they are not what this call would write
};

/// What a call of encode_set() did.
struct Encoded {
  int64_t images = 0;   ///< that it encoded
  int64_t shards = 0;   ///< that it wrote
  int64_t all = 0;      ///< shards that the folder is to have
  int64_t indexed = 0;  ///< images of the index; 0: other processes' shards are missing, and there is no index yet
};

/// Writes shards into `folder`, which has no index yet unless `missing`, and the index if no shard is missing: the last process of a job
/// does. The files are the same whatever the batch and the number of processes. Leaves out images that cannot be read if the set does
/// (ImageFiles::skips_errors). `fingerprint`: of the first stage. `progress` receives how many images of how many are done; if it returns
/// false, Interrupted is thrown, and a process alone removes what it wrote unless `missing`.
Encoded encode_set(const Autoencoder& autoencoder, const std::string& fingerprint, at::Device device, const Dataset& data,
                   const ImageShape& image, const std::filesystem::path& folder, const EncodingOptions& options,
                   const std::function<bool(int64_t done, int64_t count)>& progress);

}  // namespace brume
