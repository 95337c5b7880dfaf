// Images and captions in tar shards, as WebDataset has them (github.com/webdataset/webdataset): the files of a sample follow one another
// and share a key, their path up to the first dot of its last part: 000017.jpg, 000017.txt, 000017.json.
//
// The headers are walked once, when the set is opened; images are read where they lie, through memory maps, at any index.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/errors.h"
#include "brume/config/fields.h"
#include "brume/config/registry.h"
#include "brume/config/utf8.h"
#include "brume/core/dataset.h"
#include "brume/data/split.h"
#include "brume/files/json.h"
#include "brume/files/mapped_file.h"
#include "brume/files/tar.h"
#include "brume/image/resize_crop.h"

namespace brume::plugins {
namespace {

namespace fs = std::filesystem;

/// "a{00..02}.tar" as a00.tar, a01.tar, a02.tar; "{x,y}.tar" as x.tar, y.tar. Several braces: every combination.
std::vector<std::string> expanded(const std::string& pattern) {
  const size_t open = pattern.find('{'), close = pattern.find('}', open);
  if (open == pattern.npos || close == pattern.npos) return {pattern};
  const std::string inside = pattern.substr(open + 1, close - open - 1), before = pattern.substr(0, open);
  std::vector<std::string> words;
  if (const size_t dots = inside.find(".."); dots != inside.npos) {
    const std::string first = inside.substr(0, dots), last = inside.substr(dots + 2);
    const auto digits = [](const std::string& s) { return !s.empty() && s.size() < 10 && s.find_first_not_of("0123456789") == s.npos; };
    if (!digits(first) || !digits(last) || std::stol(first) > std::stol(last))
      throw ConfigError("'{" + inside + "}' is no range; {000..010} is one");
    for (long i = std::stol(first); i <= std::stol(last); ++i) {
      const std::string number = std::to_string(i);
      words.push_back(std::string(first.size() > number.size() ? first.size() - number.size() : 0, '0') + number);
    }
  } else {
    for (size_t at = 0; at <= inside.size();) {
      const size_t comma = std::min(inside.find(',', at), inside.size());
      words.push_back(inside.substr(at, comma - at));
      at = comma + 1;
    }
  }
  std::vector<std::string> all;
  for (const std::string& rest : expanded(pattern.substr(close + 1)))
    for (const std::string& word : words) all.push_back(before + word + rest);
  std::sort(all.begin(), all.end());
  return all;
}

/// '*' stands for any characters, '?' for one.
bool matches(std::string_view text, std::string_view pattern) {
  if (pattern.empty()) return text.empty();
  if (pattern[0] == '*') return matches(text, pattern.substr(1)) || (!text.empty() && matches(text.substr(1), pattern));
  return !text.empty() && (pattern[0] == '?' || pattern[0] == text[0]) && matches(text.substr(1), pattern.substr(1));
}

/// The files that a pattern names, sorted; '*' and '?' in the last part of the path only.
std::vector<std::string> files_of(const std::string& pattern) {
  std::vector<std::string> files;
  for (const std::string& one : expanded(pattern)) {
    const fs::path path = one;
    if (one.find_first_of("*?") == one.npos) {
      if (!fs::is_regular_file(path)) throw ConfigError("there is no shard '" + one + "'");
      files.push_back(one);
      continue;
    }
    const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
    if (!fs::is_directory(folder)) throw ConfigError("there is no folder '" + folder.string() + "'");
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.is_regular_file() && matches(entry.path().filename().string(), path.filename().string()))
        found.push_back((path.has_parent_path() ? folder / entry.path().filename() : entry.path().filename()).string());
    if (found.empty()) throw ConfigError("no shard is called '" + one + "'");
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
  }
  return files;
}

class WebDataset final : public Dataset {
 public:
  struct Options {
    std::string shards, caption_key = "caption";
    ResizeCrop fit;
    Split split;

    void declare(Fields& f) {
      f.field("shards", shards, "tar files: a path with {000..010}, {a,b} or, in its last part, * and ? (required)");
      f.field("caption_key", caption_key, "where the caption is in a .json, for samples that have no .txt");
      fit.declare(f);
      split.declare(f, "of the samples, by the hash of their keys");
    }
  };

  static void check(const Options& o, const Context& context) {
    if (o.shards.empty()) throw ConfigError("missing 'shards' (tar files, such as 'train-{000..010}.tar')");
    ResizeCrop::check(context.shape);
  }

  WebDataset(Options options, const Context& context) : o_(std::move(options)), shape_(context.shape) {
    for (const std::string& file : files_of(o_.shards)) add_shard(MappedFile::open(file));
    if (samples_.empty()) throw ConfigError("'" + o_.shards + "' has no image (looked for .jpg, .jpeg, .png and .webp)");
  }

  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }

  Annotation read(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    if (index < 0 || index >= size())
      throw std::out_of_range("webdataset: sample " + std::to_string(index) + " of " + std::to_string(size()));
    const Sample& s = samples_[static_cast<size_t>(index)];
    o_.fit.read(bytes(s, s.image), name(s, s.image), shape_, draw, pixels);
    return {.label = -1, .caption = caption(s)};
  }

 private:
  struct Piece {
    uint64_t offset = 0, size = 0;
    bool known = false;
  };
  struct Sample {
    size_t shard;
    std::string key;
    Piece image, text, json;
  };

  std::string_view bytes(const Sample& s, const Piece& p) const { return shards_[s.shard]->bytes(p.offset, p.size); }
  std::string name(const Sample& s, const Piece& p) const {
    return shards_[s.shard]->path() + ":" + s.key + (p.offset == s.image.offset ? "" : p.offset == s.text.offset ? ".txt" : ".json");
  }

  void add_shard(std::shared_ptr<const MappedFile> file) {
    shards_.push_back(file);
    Sample sample{shards_.size() - 1, "", {}, {}, {}};
    const auto finish = [&] {
      if (sample.image.known && o_.split.has(sample.key)) samples_.push_back(sample);
    };
    for (const TarEntry& entry : read_tar(file->bytes(), file->path())) {
      const size_t slash = entry.name.rfind('/'), dot = entry.name.find('.', slash == entry.name.npos ? 0 : slash + 1);
      if (dot == entry.name.npos || entry.name[slash == entry.name.npos ? 0 : slash + 1] == '.') continue;
      if (const std::string key = entry.name.substr(0, dot); key != sample.key) {
        finish();
        sample = {shards_.size() - 1, key, {}, {}, {}};
      }
      const std::string extension = entry.name.substr(dot + 1);
      const Piece piece{entry.offset, entry.size, true};
      if (extension == "jpg" || extension == "jpeg" || extension == "png" || extension == "webp") sample.image = piece;
      if (extension == "txt") sample.text = piece;
      if (extension == "json") sample.json = piece;
    }
    finish();
  }

  std::string caption(const Sample& s) const {
    std::string text;
    if (s.text.known) {
      text = bytes(s, s.text);
      while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
    } else if (s.json.known) {
      const auto object = json_or_discarded(bytes(s, s.json));
      if (!object.is_object()) throw ConfigError(name(s, s.json) + ": is not a JSON object");
      if (!object.contains(o_.caption_key)) throw ConfigError(name(s, s.json) + ": there is no '" + o_.caption_key + "'");
      if (!object[o_.caption_key].is_string()) throw ConfigError(name(s, s.json) + ": '" + o_.caption_key + "' is not a string");
      text = object[o_.caption_key].get<std::string>();
    }
    if (const auto bad = invalid_utf8(text))
      throw ConfigError(name(s, s.text.known ? s.text : s.json) + ": byte " + std::to_string(*bad + 1) + " is not UTF-8");
    return text;
  }

  Options o_;
  ImageShape shape_;
  std::vector<std::shared_ptr<const MappedFile>> shards_;
  std::vector<Sample> samples_;
  std::vector<std::string> classes_;
};

}  // namespace

void register_dataset_webdataset(Registry& r) { r.add<Dataset, WebDataset>("webdataset", "images and captions in tar shards"); }

}  // namespace brume::plugins
