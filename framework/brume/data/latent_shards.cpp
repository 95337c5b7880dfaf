#include "brume/data/latent_shards.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/util/Half.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/files/atomic_file.h"
#include "brume/files/mapped_file.h"

namespace brume {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
constexpr int format = 1;

Json json_of(const ImageShape& s) { return {s.channels, s.height, s.width}; }
ImageShape shape_of(const Json& j) {
  const ImageShape s{j.at(0).get<int64_t>(), j.at(1).get<int64_t>(), j.at(2).get<int64_t>()};
  if (s.channels < 1 || s.height < 1 || s.width < 1) throw std::runtime_error("a shape is not positive");
  return s;
}

}  // namespace

int64_t LatentIndex::count() const {
  int64_t all = 0;
  for (const Shard& s : shards) all += s.count;
  return all;
}

std::string latent_shard_name(int64_t number) { return fmt::format("latents-{:05}.safetensors", number); }

void write_latent_shard(const std::string& path, const at::Tensor& moments, const std::vector<Annotation>& annotations,
                        const std::string& origin) {
  const int64_t n = moments.size(0);
  const at::Tensor labels = at::empty({n}, at::kLong), ends = at::empty({n}, at::kLong);
  std::string text;
  for (int64_t i = 0; i < n; ++i) {
    labels.data_ptr<int64_t>()[i] = annotations[size_t(i)].label;
    text += annotations[size_t(i)].caption;
    ends.data_ptr<int64_t>()[i] = int64_t(text.size());
  }
  const at::Tensor captions = at::empty({int64_t(text.size())}, at::kByte);
  if (!text.empty()) std::memcpy(captions.data_ptr(), text.data(), text.size());
  write_safetensors(path, {{"moments", moments}, {"labels", labels}, {"captions", captions}, {"caption_ends", ends}},
                    {{"format", "brume-latents"}, {"origin", origin}});
}

void write_latent_index(const std::string& folder, const LatentIndex& index) {
  Json j{{"format", format},
         {"autoencoder", index.encoded.autoencoder},
         {"image", json_of(index.image)},
         {"moments", json_of(index.encoded.shape)},
         {"count", index.count()},
         {"classes", index.classes},
         {"shards", Json::array()}};
  for (const LatentIndex::Shard& s : index.shards) j["shards"].push_back({{"file", s.file}, {"count", s.count}});
  write_file((fs::path(folder) / "index.json").string(), j.dump(1) + "\n");
}

LatentIndex read_latent_index(const std::string& folder) {
  const std::string path = (fs::path(folder) / "index.json").string();
  const auto file = MappedFile::open(path);
  try {
    const Json j = Json::parse(file->bytes());
    if (j.at("format").get<int>() > format) throw std::runtime_error("its format is of a newer brume");
    LatentIndex index{{shape_of(j.at("moments")), j.at("autoencoder").get<std::string>()}, shape_of(j.at("image")), {}, {}};
    index.classes = j.at("classes").get<std::vector<std::string>>();
    for (const Json& s : j.at("shards")) {
      index.shards.push_back({s.at("file").get<std::string>(), s.at("count").get<int64_t>()});
      if (fs::path(index.shards.back().file).filename() != index.shards.back().file)
        throw std::runtime_error("a shard lies outside of its folder");
    }
    if (index.count() == 0) throw std::runtime_error("there are no images");
    return index;
  } catch (const std::exception& e) {
    throw ConfigError(fmt::format("{}: not an index of latents as `brume encode` writes it ({})", path, e.what()));
  }
}

LatentShard::LatentShard(const std::string& folder, const LatentIndex& index, size_t number) : count_(index.shards[number].count) {
  const std::string path = (fs::path(folder) / index.shards[number].file).string();
  const SafetensorsFile file(path);
  moments_ = file.tensor("moments"), labels_ = file.tensor("labels"), captions_ = file.tensor("captions"),
  ends_ = file.tensor("caption_ends");
  const ImageShape& s = index.encoded.shape;
  const auto wrong = [&](const std::string& what) { throw ConfigError(fmt::format("{}: {}; encode the images again", path, what)); };
  if (moments_.sizes() != at::IntArrayRef({count_, s.channels, s.height, s.width}) || labels_.sizes() != at::IntArrayRef({count_}) ||
      ends_.sizes() != at::IntArrayRef({count_}))
    wrong(fmt::format("does not hold the {} of {} that the index tells of", counted(count_, "moment"), s.text()));
  const auto type = moments_.scalar_type();
  if ((type != at::kFloat && type != at::kHalf) || labels_.scalar_type() != at::kLong || ends_.scalar_type() != at::kLong ||
      captions_.scalar_type() != at::kByte)
    wrong("its tensors are of other types than `brume encode` writes");
  const int64_t* ends = ends_.data_ptr<int64_t>();
  if (!std::is_sorted(ends, ends + count_) || (count_ > 0 && (ends[0] < 0 || ends[count_ - 1] != captions_.numel())))
    wrong("its captions end outside the text of captions");
  const int64_t classes = int64_t(index.classes.size()), *labels = labels_.data_ptr<int64_t>();
  for (int64_t i = 0; i < count_; ++i)
    if (labels[i] < -1 || labels[i] >= std::max<int64_t>(classes, 0)) wrong(fmt::format("class {} of {}", labels[i], classes));
}

Annotation LatentShard::read(int64_t i, float* moments) const {
  const int64_t n = moments_.numel() / count_;
  if (moments_.scalar_type() == at::kFloat) {
    std::copy_n(moments_.data_ptr<float>() + i * n, n, moments);
  } else {
    const c10::Half* from = moments_.data_ptr<c10::Half>() + i * n;
    for (int64_t k = 0; k < n; ++k) moments[k] = float(from[k]);
  }
  const int64_t *ends = ends_.data_ptr<int64_t>(), begin = i > 0 ? ends[i - 1] : 0;
  const char* text = reinterpret_cast<const char*>(captions_.data_ptr<uint8_t>());
  return {.label = labels_.data_ptr<int64_t>()[i], .caption = std::string(text + begin, size_t(ends[i] - begin))};
}

}  // namespace brume
