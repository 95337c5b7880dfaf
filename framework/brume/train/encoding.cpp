#include "brume/train/encoding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "brume/config/errors.h"
#include "brume/core/boundary.h"
#include "brume/data/latent_shards.h"
#include "brume/diffusion/tiling.h"
#include "brume/files/atomic_file.h"
#include "brume/files/lock.h"
#include "brume/train/loader.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

/// Removes the shards that a killed process left, which no index names.
void remove_stale_shards(const fs::path& folder) {
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("latents-") && name.ends_with(".safetensors")) stale.push_back(entry.path());
  }
  for (const fs::path& shard : stale) fs::remove(shard);
  remove_stale_files(folder.string());
}

/// Removes what was written, unless it is kept.
class Written {
 public:
  ~Written() {
    std::error_code ignored;
    for (const fs::path& file : files_) fs::remove(file, ignored);
  }
  void add(fs::path file) { files_.push_back(std::move(file)); }
  void keep() { files_.clear(); }

 private:
  std::vector<fs::path> files_;
};

int64_t images_of(const Dataset& data, int64_t count) {
  if (data.size() == 0 && count == 0) throw ConfigError("the data set is endless; a count must say how many of its images are encoded");
  return data.size() == 0 ? count : count == 0 ? data.size() : std::min(count, data.size());
}

}  // namespace

int64_t encode_set(const Autoencoder& autoencoder, const std::string& fingerprint, at::Device device, const Dataset& data,
                   const ImageShape& image, const fs::path& folder, const EncodingOptions& o,
                   const std::function<bool(int64_t, int64_t)>& progress) {
  const at::NoGradGuard no_grad;
  if (data.encoded()) throw ConfigError("the data set holds latents already");
  const int64_t count = images_of(data, o.count);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw ConfigError(fmt::format("{}: cannot be made: {}", folder.string(), error.message()));
  const Lock lock(fs::canonical(folder).string());  // where a link leads
  if (lock.taken())
    throw ConfigError(fmt::format("{}: another process writes into it; wait for it, or name another folder", folder.string()));
  if (fs::exists(folder / "index.json"))
    throw ConfigError(fmt::format("{}: holds latents already; take them away, or name another folder", folder.string()));
  remove_stale_shards(folder);
  LatentIndex index{{autoencoder.moments(image), fingerprint}, image, data.classes(), {}};
  Written written;
  const auto encoded = [&](const Tensor& images) {
    return o.tile > 0 ? encode_moments_tiled(autoencoder, images, {o.tile}) : checked_moments(autoencoder, images);
  };
  for (int64_t done = 0; done < count;) {
    const int64_t end = std::min(count, done + o.shard);
    std::vector<Tensor> moments;
    std::vector<Annotation> annotations;
    while (done < end) {
      const int64_t n = std::min(o.batch, end - done);
      Batch read = read_in_turn(data, image, done, n);
      done += n;
      if (read.annotations.empty()) continue;
      std::move(read.annotations.begin(), read.annotations.end(), std::back_inserter(annotations));
      moments.push_back(encoded(read.images.to(device)).cpu().to(o.half ? at::kHalf : at::kFloat).contiguous());
      if (progress && !progress(done, count)) throw Interrupted();
    }
    if (moments.empty()) continue;  // none of its images could be read
    const std::string name = latent_shard_name(int64_t(index.shards.size()));
    written.add(folder / name);
    write_latent_shard((folder / name).string(), at::cat(moments), annotations);
    index.shards.push_back({name, int64_t(annotations.size())});
  }
  if (index.shards.empty()) throw ConfigError("none of the images can be read");
  write_latent_index(folder.string(), index);
  written.keep();
  return index.count();
}

}  // namespace brume
