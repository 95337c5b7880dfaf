#include "brume/train/encoding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "brume/config/errors.h"
#include "brume/core/boundary.h"
#include "brume/core/fnv.h"
#include "brume/data/latent_shards.h"
#include "brume/diffusion/tiling.h"
#include "brume/files/atomic_file.h"
#include "brume/files/lock.h"
#include "brume/train/class_scores.h"
#include "brume/train/loader.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

/// Returns the shards in a folder.
std::vector<fs::path> shards_in(const fs::path& folder) {
  std::vector<fs::path> shards;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("latents-") && name.ends_with(".safetensors")) shards.push_back(entry.path());
  }
  return shards;
}

/// Removes the shards that an index does not name: those of an earlier call, and those without images.
void remove_other_shards(const fs::path& folder, const LatentIndex& index) {
  std::error_code ignored;
  for (const fs::path& shard : shards_in(folder)) {
    const auto named = [&](const LatentIndex::Shard& s) { return s.file == shard.filename(); };
    if (std::none_of(index.shards.begin(), index.shards.end(), named)) fs::remove(shard, ignored);
  }
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

/// One call of encode_set().
class Encoding {
 public:
  Encoding(const Autoencoder& autoencoder, const std::string& fingerprint, at::Device device, const Dataset& data, const ImageShape& image,
           const fs::path& folder, const EncodingOptions& o)
      : autoencoder_(autoencoder),
        fingerprint_(fingerprint),
        device_(device),
        data_(data),
        image_(image),
        folder_(folder),
        o_(o),
        count_(count_of(data, o.count)),
        shards_((count_ + o.shard - 1) / o.shard),
        part_(part_of(o.place, shards_)) {
    for (int64_t k = part_.begin; k < part_.end; ++k)
      if (!o_.missing || !is_there(k)) mine_.push_back(k), to_do_ += images_of(k).count();
  }

  /// Encodes the shards of this process, and writes the index if all are there.
  Encoded run(const std::function<bool(int64_t, int64_t)>& progress) {
    Encoded result{.all = shards_};
    Written written;
    for (const int64_t k : mine_) {
      if (!o_.missing && o_.place.size == 1) written.add(path_of(k));
      result.images += encode(k, progress);
      ++result.shards;
    }
    result.indexed = finish();
    written.keep();
    return result;
  }

 private:
  NumberRange images_of(int64_t shard) const { return {shard * o_.shard, std::min(count_, (shard + 1) * o_.shard)}; }
  fs::path path_of(int64_t shard) const { return folder_ / latent_shard_name(shard); }

  /// Returns what a shard says it is of: equal texts, equal shards.
  std::string origin_of(int64_t shard) const {
    const NumberRange range = images_of(shard);
    const Batch first = read_in_turn(data_, image_, range.begin, 1);
    Fnv1a pixels;
    const Tensor values = first.images.contiguous();
    for (int64_t i = 0; i < values.numel(); ++i) {
      uint32_t bits = 0;
      std::memcpy(&bits, values.data_ptr<float>() + i, sizeof bits);
      pixels.add(bits);
    }
    const nlohmann::ordered_json origin{{"autoencoder", fingerprint_},
                                        {"first", range.begin},
                                        {"images", range.count()},
                                        {"of", image_.text()},
                                        {"tile", o_.tile},
                                        {"type", o_.half ? "float16" : "float32"},
                                        {"first_image", fmt::format("fnv1a:{:016x}", pixels.value)}};
    return origin.dump();
  }

  /// Returns the number of images in a shard of the folder, if it is what this call would write.
  std::optional<int64_t> images_in(int64_t shard) const {
    if (!fs::exists(path_of(shard))) return {};
    const SafetensorsFile file(path_of(shard).string());
    if (origin_in(file) != origin_of(shard)) return {};
    return file.tensor("labels").size(0);
  }
  static std::string origin_in(const SafetensorsFile& file) {
    const auto found = file.metadata().find("origin");
    return found == file.metadata().end() ? "" : found->second;
  }

  /// Throws ConfigError if a shard of the folder is another than this call would write.
  bool is_there(int64_t shard) const {
    if (!fs::exists(path_of(shard))) return false;
    if (images_in(shard)) return true;
    throw ConfigError(fmt::format("{} was made of {}, and would now be of {}; another folder keeps them apart", path_of(shard).string(),
                                  origin_in(SafetensorsFile(path_of(shard).string())), origin_of(shard)));
  }

  Tensor moments_of(const Tensor& images) const {
    const Tensor moments = o_.tile > 0 ? encode_moments_tiled(autoencoder_, images, {o_.tile}) : checked_moments(autoencoder_, images);
    return moments.cpu().to(o_.half ? at::kHalf : at::kFloat).contiguous();
  }

  /// Writes a shard; returns the number of its images, 0 if none could be read.
  int64_t encode(int64_t shard, const std::function<bool(int64_t, int64_t)>& progress) {
    const ImageShape shape = autoencoder_.moments(image_);
    std::vector<Tensor> moments{at::empty({0, shape.channels, shape.height, shape.width}, o_.half ? at::kHalf : at::kFloat)};
    std::vector<Annotation> annotations;
    const NumberRange range = images_of(shard);
    for (int64_t first = range.begin; first < range.end; first += o_.batch) {
      const int64_t n = std::min(o_.batch, range.end - first);
      Batch read = read_in_turn(data_, image_, first, n);
      done_ += n;
      if (!read.annotations.empty()) {
        std::move(read.annotations.begin(), read.annotations.end(), std::back_inserter(annotations));
        moments.push_back(moments_of(read.images.to(device_)));
      }
      if (progress && !progress(done_, to_do_)) throw Interrupted();
    }
    write_latent_shard(path_of(shard).string(), at::cat(moments), annotations, origin_of(shard));
    return int64_t(annotations.size());
  }

  /// Writes the index if no shard is missing; returns the number of its images.
  int64_t finish() const {
    LatentIndex index{{autoencoder_.moments(image_), fingerprint_}, image_, data_.classes(), {}};
    for (int64_t k = 0; k < shards_; ++k) {
      const std::optional<int64_t> images = images_in(k);
      if (!images) return 0;
      if (*images > 0) index.shards.push_back({latent_shard_name(k), *images});
    }
    if (index.shards.empty()) throw ConfigError("none of the images can be read");
    write_latent_index(folder_.string(), index);
    remove_other_shards(folder_, index);
    return index.count();
  }

  const Autoencoder& autoencoder_;
  const std::string& fingerprint_;
  at::Device device_;
  const Dataset& data_;
  const ImageShape& image_;
  const fs::path& folder_;
  const EncodingOptions& o_;
  int64_t count_, shards_;
  NumberRange part_;
  std::vector<int64_t> mine_{};  ///< shards that this process makes
  int64_t to_do_ = 0, done_ = 0;
};

}  // namespace

Encoded encode_set(const Autoencoder& autoencoder, const std::string& fingerprint, at::Device device, const Dataset& data,
                   const ImageShape& image, const fs::path& folder, const EncodingOptions& o,
                   const std::function<bool(int64_t, int64_t)>& progress) {
  const at::NoGradGuard no_grad;
  if (data.encoded()) throw ConfigError("the data set holds latents already");
  if (data.size() == 0 && o.count == 0) throw ConfigError("the data set is endless; a count must say how many of its images are encoded");
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw ConfigError(fmt::format("{}: cannot be made: {}", folder.string(), error.message()));
  const bool alone = o.place.size == 1;
  const Lock lock(fs::canonical(folder).string(), alone ? Lock::With::nobody : Lock::With::sharers);  // where a link leads
  if (lock.taken())
    throw ConfigError(fmt::format("{}: another process writes into it; wait for it, or name another folder", folder.string()));
  if (fs::exists(folder / "index.json") && !o.missing)
    throw ConfigError(fmt::format("{}: holds latents already; take them away, or name another folder", folder.string()));
  if (alone && !o.missing) {
    remove_other_shards(folder, {});  // that a killed process left
    remove_stale_files(folder.string());
  }
  return Encoding(autoencoder, fingerprint, device, data, image, folder, o).run(progress);
}

}  // namespace brume
