#pragma once
// A data set as a first stage sees it, in files: a folder with `index.json` and safetensors shards. A shard holds
//   moments          [N, C, H, W] F32 or F16: Autoencoder::encode_moments of N images, before any scaling
//   labels           [N] I64, -1 without a label
//   captions         [bytes] U8: UTF-8, one after the other;   caption_ends  [N] I64: the end of each
#include <string>
#include <vector>

#include "brume/core/dataset.h"
#include "brume/weights/safetensors.h"

namespace brume {

/// What `index.json` says.
struct LatentIndex {
  EncodedSet encoded;
  ImageShape image;  ///< of the images that were encoded
  std::vector<std::string> classes;
  struct Shard {
    std::string file;  ///< in the folder of the index
    int64_t count = 0;
  };
  std::vector<Shard> shards;
  int64_t count() const;
};

/// Returns "latents-00003.safetensors".
std::string latent_shard_name(int64_t number);

/// Writes a shard. `origin`: what it is made of, which a call for missing shards compares; metadata "origin".
void write_latent_shard(const std::string& path, const at::Tensor& moments, const std::vector<Annotation>& annotations,
                        const std::string& origin);
void write_latent_index(const std::string& folder, const LatentIndex& index);
/// Throws ConfigError saying what is wrong with the file.
LatentIndex read_latent_index(const std::string& folder);

/// A shard in mapped memory. Reading is const and safe from several threads.
class LatentShard {
 public:
  /// Throws ConfigError if the file does not hold what the index says.
  LatentShard(const std::string& folder, const LatentIndex& index, size_t number);
  int64_t count() const { return count_; }
  /// Writes the moments of image `i`; returns its annotation.
  Annotation read(int64_t i, float* moments) const;

 private:
  int64_t count_;
  at::Tensor moments_, labels_, captions_, ends_;
};

}  // namespace brume
