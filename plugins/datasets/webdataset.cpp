// Images and captions in tar shards, as WebDataset has them (github.com/webdataset/webdataset): the files of a sample follow one another
// and share a key, their path up to the first dot of its last part: 000017.jpg, 000017.txt (a caption), 000017.cls (a class),
// 000017.json (either).
//
// The headers are walked once, when the set is opened; images are read in place, through memory maps, at any index.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/errors.h"
#include "brume/config/fields.h"
#include "brume/config/number.h"
#include "brume/config/registry.h"
#include "brume/config/suggest.h"
#include "brume/config/utf8.h"
#include "brume/core/dataset.h"
#include "brume/core/image_files.h"
#include "brume/data/caption_edits.h"
#include "brume/data/split.h"
#include "brume/files/json.h"
#include "brume/files/mapped_file.h"
#include "brume/files/tar.h"
#include "brume/image/image_finder.h"
#include "brume/image/resize_crop.h"

namespace brume::plugins {
namespace {

namespace fs = std::filesystem;

/// Returns "a{00..02}.tar" as a00.tar, a01.tar, a02.tar; "{x,y}.tar" as x.tar, y.tar. Several braces: every combination.
std::vector<std::string> expanded(const std::string& pattern) {
  const size_t open = pattern.find('{'), close = pattern.find('}', open);
  if (open == pattern.npos || close == pattern.npos) return {pattern};
  const std::string inside = pattern.substr(open + 1, close - open - 1), before = pattern.substr(0, open);
  std::vector<std::string> words;
  if (const size_t dots = inside.find(".."); dots != inside.npos) {
    const std::string first = inside.substr(0, dots), last = inside.substr(dots + 2);
    const auto from = parse_number<uint32_t>(first), to = parse_number<uint32_t>(last);
    if (!from || !to || *from > *to) throw ConfigError("'{" + inside + "}' is no range; {000..010} is one");
    for (uint64_t i = *from; i <= *to; ++i) {
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

/// Returns the files that a pattern names, sorted; '*' and '?' in the last part of the path only.
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

/// What the name of a member says: its sample's key, and what it is of the sample.
struct Name {
  std::string key, extension;  ///< the extension in small letters; empty without one
  bool hidden = false;
};

Name parts_of(const std::string& member) {
  Name name;
  size_t start = 0;
  for (size_t slash; (slash = member.find('/', start)) != member.npos; start = slash + 1) {
    const std::string_view folder = std::string_view(member).substr(start, slash - start);
    name.hidden |= folder.starts_with('.') && folder != "." && folder != "..";
  }
  name.hidden |= member.find('.', start) == start;
  const size_t dot = std::min(member.find('.', start), member.size());
  name.key = member.substr(0, dot);
  if (dot < member.size()) name.extension = lower_case(member.substr(dot + 1));
  return name;
}

std::string_view trimmed(std::string_view text) {
  constexpr const char* blank = " \t\r\n";
  const size_t first = std::min(text.find_first_not_of(blank), text.size());
  return text.substr(first, text.find_last_not_of(blank) + 1 - first);
}

class WebDataset final : public Dataset, public ImageFiles {
 public:
  struct Options {
    std::string shards, caption_key = "caption", class_key;
    std::vector<std::string> classes;
    CaptionEdits edits;
    ResizeCrop fit;
    Split split;

    void declare(Fields& f) {
      f.field("shards", shards, "tar files: a path with {000..010}, {a,b} or, in its last part, * and ? (required)");
      f.field("caption_key", caption_key, "key of the caption in a .json, for samples without a .txt");
      f.field("class_key", class_key, "key of the class in a .json, for samples without a .cls; absent: none");
      f.field("classes", classes, "names of the classes, by the number in a .cls; absent: '0', '1', ..., or the names in the .cls, sorted");
      edits.declare(f);
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
    if (samples_.empty()) throw ConfigError("'" + o_.shards + "' has no image (looked for " + looked_for() + ")");
    read_classes();
  }

  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }
  const Inventory& inventory() const override { return inventory_; }
  bool skips_errors() const override { return o_.fit.on_error == ResizeCrop::OnError::skip; }

  Annotation read(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    if (index < 0 || index >= size())
      throw std::out_of_range("webdataset: sample " + std::to_string(index) + " of " + std::to_string(size()));
    const Sample& s = samples_[static_cast<size_t>(index)];
    const SizeIds sizes = o_.fit.read(bytes(s, s.image), name(s, s.image), shape_, draw, pixels);
    return {.label = s.label, .caption = o_.edits.apply(caption(s), draw), .sizes = sizes};
  }

  void check_image(int64_t index) const override {
    const Sample& s = samples_.at(static_cast<size_t>(index));
    o_.fit.check_file(bytes(s, s.image), name(s, s.image), shape_);
    caption(s);
  }

 private:
  struct Piece {
    uint64_t offset = 0, size = 0;
    bool known = false;
  };
  struct Sample {
    size_t shard = 0;
    std::string key{};
    Piece image{}, text{}, json{}, category{};
    uint8_t format = 0;  ///< of the image, in image_extensions()
    int64_t label = -1;
  };

  static std::string looked_for() {
    std::string text;
    for (const std::string& e : image_extensions()) text += (text.empty() ? "." : ", .") + e;
    return text;
  }
  std::string_view bytes(const Sample& s, const Piece& p) const { return shards_[s.shard]->bytes(p.offset, p.size); }
  std::string name(const Sample& s, const Piece& p) const {
    const std::string extension = &p == &s.text ? "txt" : &p == &s.json ? "json" : &p == &s.category ? "cls" : image_extensions()[s.format];
    return shards_[s.shard]->path() + ":" + s.key + "." + extension;
  }

  void add_shard(const std::shared_ptr<const MappedFile>& file) {
    shards_.push_back(file);
    Sample sample{.shard = shards_.size() - 1};
    for (const TarEntry& entry : read_tar(file->bytes(), file->path())) {
      const Name member = parts_of(entry.name);
      if (member.hidden || member.extension.empty()) {
        inventory_.leave_out(member.hidden ? "hidden" : "of no known extension", entry.name);
        continue;
      }
      if (member.key != sample.key) {
        finish(sample);
        sample = {.shard = shards_.size() - 1, .key = member.key};
      }
      add_piece(sample, member.extension, {entry.offset, entry.size, true}, entry.name);
    }
    finish(sample);
  }

  void add_piece(Sample& sample, const std::string& extension, const Piece& piece, const std::string& member) {
    const auto& images = image_extensions();
    const auto format = std::find(images.begin(), images.end(), extension);
    Piece* kept = nullptr;
    if (format != images.end()) kept = &sample.image;
    if (extension == "txt") kept = &sample.text;
    if (extension == "json") kept = &sample.json;
    if (extension == "cls") kept = &sample.category;
    if (!kept) return inventory_.leave_out("of no known extension", member);
    if (kept->known) inventory_.leave_out("followed by another of the same sample", name(sample, *kept));
    if (kept == &sample.image) sample.format = static_cast<uint8_t>(format - images.begin());
    *kept = piece;
  }

  void finish(const Sample& sample) {
    if (sample.image.known && o_.split.has(sample.key)) {
      samples_.push_back(sample);
      inventory_.captions +=
          sample.text.known || (sample.json.known && bytes(sample, sample.json).find('"' + o_.caption_key + '"') != std::string::npos);
    } else if (sample.image.known) {
      others_.push_back(sample);
      inventory_.leave_out("of the other split", sample.key);
    } else if (sample.text.known || sample.json.known || sample.category.known) {
      inventory_.leave_out("without an image", sample.key);
    }
  }

  nlohmann::json object_of(const Sample& s) const {
    auto object = json_or_discarded(bytes(s, s.json));
    if (!object.is_object()) throw ConfigError(name(s, s.json) + ": is not a JSON object");
    return object;
  }

  std::string class_place(const Sample& s) const { return name(s, s.category.known ? s.category : s.json); }

  /// Returns what the sample says of its class, a number or a name; nothing if it says nothing.
  std::optional<std::string> class_of(const Sample& s) const {
    if (s.category.known) {
      const std::string_view name = trimmed(without_byte_order_mark(bytes(s, s.category)));
      if (name.empty()) throw ConfigError(class_place(s) + ": is empty");
      return std::string(name);
    }
    if (o_.class_key.empty() || !s.json.known) return {};
    const auto object = object_of(s);
    if (!object.contains(o_.class_key)) return {};
    const auto& value = object[o_.class_key];
    if (value.is_string()) return value.get<std::string>();
    if (value.is_number_integer()) return value.dump();
    throw ConfigError(name(s, s.json) + ": '" + o_.class_key + "' is neither a number nor a name");
  }

  /// Gives every sample its label: numbers are labels, names are sorted. The classes of both splits are the same.
  void read_classes() {
    std::set<std::string> names;
    int64_t largest = -1;
    for (const auto* samples : {&samples_, &others_})
      for (const Sample& s : *samples) {
        const std::optional<std::string> name = class_of(s);
        if (!name) continue;
        const auto number = parse_number<int64_t>(*name);
        if (number) largest = std::max(largest, checked(s, *number));
        if (number) continue;
        if (const auto bad = invalid_utf8(*name))
          throw ConfigError(class_place(s) + ": byte " + std::to_string(*bad + 1) + " of the class is not UTF-8");
        names.insert(*name);
      }
    others_.clear();
    if (largest >= 0 && !names.empty())
      throw ConfigError("'" + o_.shards + "' has classes by number and by name ('" + *names.begin() + "'); one of the two is needed");
    classes_ = o_.classes;
    if (classes_.empty()) classes_.assign(names.begin(), names.end());
    for (int64_t i = int64_t(classes_.size()); i <= largest; ++i) {
      if (!o_.classes.empty())
        throw ConfigError("'" + o_.shards + "' has the class " + std::to_string(largest) + ", but 'classes' names " +
                          std::to_string(o_.classes.size()));
      classes_.push_back(std::to_string(i));
    }
    for (Sample& s : samples_)
      if (const auto name = class_of(s)) s.label = largest >= 0 ? *parse_number<int64_t>(*name) : label_of(s, *name);
  }

  int64_t checked(const Sample& s, int64_t number) const {
    constexpr int64_t most = 1'000'000;
    if (number < 0 || number >= most)
      throw ConfigError(class_place(s) + ": " + std::to_string(number) + " is no class (0 to " + std::to_string(most - 1) + ")");
    return number;
  }

  int64_t label_of(const Sample& s, const std::string& word) const {
    const auto found = std::find(classes_.begin(), classes_.end(), word);
    if (found == classes_.end()) throw ConfigError(class_place(s) + ": '" + word + "' is no class" + hint(word, classes_));
    return found - classes_.begin();
  }

  std::string caption(const Sample& s) const {
    std::string text;
    if (s.text.known) {
      text = without_byte_order_mark(bytes(s, s.text));
      while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
    } else if (s.json.known) {
      const auto object = object_of(s);
      const bool has = object.contains(o_.caption_key);
      if (!has && s.label < 0) throw ConfigError(name(s, s.json) + ": there is no '" + o_.caption_key + "'");
      if (has && !object[o_.caption_key].is_string()) throw ConfigError(name(s, s.json) + ": '" + o_.caption_key + "' is not a string");
      if (has) text = object[o_.caption_key].get<std::string>();
    }
    if (const auto bad = invalid_utf8(text))
      throw ConfigError(name(s, s.text.known ? s.text : s.json) + ": byte " + std::to_string(*bad + 1) + " is not UTF-8");
    return text;
  }

  Options o_;
  ImageShape shape_;
  std::vector<std::shared_ptr<const MappedFile>> shards_;
  std::vector<Sample> samples_, others_;  ///< others_: of the other split, while the classes are read
  std::vector<std::string> classes_;
  Inventory inventory_;
};

}  // namespace

void register_dataset_webdataset(Registry& r) { r.add<Dataset, WebDataset>("webdataset", "images and captions in tar shards"); }

}  // namespace brume::plugins
