// What a first stage made of a data set, by `brume encode`: its moments are read in place on the disk, so that a training on top of
// it does not encode an image again and again. Drawn latents stay possible, as it is moments that are kept.
#include <algorithm>
#include <filesystem>

#include "brume/config/registry.h"
#include "brume/core/dataset.h"
#include "brume/data/latent_shards.h"

namespace brume::plugins {
namespace {

class Latents final : public Dataset {
 public:
  struct Options {
    std::filesystem::path path;
    void declare(Fields& f) { f.field("path", path, "the folder that `brume encode` wrote"); }
  };
  static void check(const Options& o, const Context&) {
    if (o.path.empty()) throw ConfigError("path: the folder of the latents is missing");
  }
  Latents(const Options& o, const Context& context) : index_(read_latent_index(o.path.string())) {
    if (index_.image != context.shape)
      throw ConfigError("the images of '" + o.path.string() + "' were " + index_.image.text() + ", the model wants " +
                        context.shape.text());
    for (size_t i = 0; i < index_.shards.size(); ++i) {
      shards_.emplace_back(o.path.string(), index_, i);
      ends_.push_back((ends_.empty() ? 0 : ends_.back()) + shards_.back().count());
    }
  }
  int64_t size() const override { return ends_.back(); }
  const std::vector<std::string>& classes() const override { return index_.classes; }
  std::optional<EncodedSet> encoded() const override { return index_.encoded; }

  Annotation read(int64_t index, uint64_t, std::span<float> moments) const override {
    if (index < 0 || index >= size()) throw std::out_of_range("latents: image " + std::to_string(index) + " of " + std::to_string(size()));
    if (int64_t(moments.size()) != index_.encoded.shape.numel()) throw std::logic_error("latents: asked for something else than moments");
    const size_t shard = size_t(std::upper_bound(ends_.begin(), ends_.end(), index) - ends_.begin());
    return shards_[shard].read(index - (shard > 0 ? ends_[shard - 1] : 0), moments.data());
  }

 private:
  LatentIndex index_;
  std::vector<LatentShard> shards_;
  std::vector<int64_t> ends_;  ///< of the shards, in images
};

}  // namespace

void register_dataset_latents(Registry& r) {
  r.add<Dataset, Latents>("latents", "what a first stage made of a data set, by `brume encode`");
}

}  // namespace brume::plugins
