// Images and labels in the idx format of MNIST (LeCun, Cortes & Burges, yann.lecun.com/exdb/mnist) and of the sets that followed
// it (Fashion-MNIST, KMNIST, EMNIST): big-endian `00 00 08 D`, D sizes of four bytes, then the bytes themselves. Images have
// D = 3 (count, height, width), labels D = 1. A gzip stream is known by its content, not its name, and unpacked.
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "brume/config/errors.h"
#include "brume/config/fields.h"
#include "brume/config/registry.h"
#include "brume/config/suggest.h"
#include "brume/core/dataset.h"
#include "brume/core/seed.h"
#include "brume/image/image.h"

namespace brume::plugins {
namespace {

std::string quoted(const std::filesystem::path& file) { return "'" + file.string() + "'"; }

struct GzClose {
  void operator()(gzFile file) const { gzclose_r(file); }
};

/// Returns a whole file, unpacked if it is a gzip stream.
std::vector<uint8_t> read_bytes(const std::filesystem::path& file) {
  std::error_code error;
  const auto type = std::filesystem::status(file, error).type();
  if (type == std::filesystem::file_type::not_found)
    throw ConfigError("there is no file " + quoted(file) + (file.is_absolute() ? "" : " in " + std::filesystem::current_path().string()));
  if (type == std::filesystem::file_type::directory) throw ConfigError(quoted(file) + " is a folder, not a file");
  const std::unique_ptr<gzFile_s, GzClose> in(gzopen(file.c_str(), "rb"));
  if (!in) throw ConfigError("cannot read " + quoted(file) + ": " + std::strerror(errno));

  std::vector<uint8_t> bytes;
  constexpr size_t step = size_t{1} << 20;
  for (int got = 1; got > 0;) {
    const size_t end = bytes.size();
    bytes.resize(end + step);
    got = gzread(in.get(), bytes.data() + end, step);
    bytes.resize(end + static_cast<size_t>(std::max(got, 0)));
  }
  int code = Z_OK;
  std::string what = gzerror(in.get(), &code);
  if (code == Z_OK || code == Z_STREAM_END) return bytes;
  if (const std::string prefix = file.string() + ": "; what.rfind(prefix, 0) == 0) what.erase(0, prefix.size());
  throw ConfigError(quoted(file) + " is a broken gzip stream: " + what);
}

std::string hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t b : bytes) {
    if (!text.empty()) text += ' ';
    text += "0123456789abcdef"[b >> 4];
    text += "0123456789abcdef"[b & 15];
  }
  return text.empty() ? "nothing" : text;
}

/// The contents of an idx file: its sizes, and the bytes after the header.
struct Idx {
  std::vector<uint64_t> sizes;
  std::vector<uint8_t> bytes;
  size_t header = 0;
  const uint8_t* data() const { return bytes.data() + header; }
};

Idx read_idx(const std::filesystem::path& file, uint8_t dimensions, const std::string& content) {
  Idx idx{.sizes = {}, .bytes = read_bytes(file), .header = 4 + size_t{4} * dimensions};
  const std::vector<uint8_t>& bytes = idx.bytes;
  const std::array<uint8_t, 4> magic = {0, 0, 8, dimensions};
  const std::span<const uint8_t> start(bytes.data(), std::min<size_t>(bytes.size(), 4));
  if (!std::equal(start.begin(), start.end(), magic.begin(), magic.end()))
    throw ConfigError(quoted(file) + " is not an idx file of " + content + ": it starts with " + hex(start) + ", not with " + hex(magic));

  const std::string found = ", found " + std::to_string(bytes.size());
  if (bytes.size() < idx.header)
    throw ConfigError(quoted(file) + " has the wrong length: its header alone takes " + std::to_string(idx.header) + " bytes" + found);
  std::string shape;
  uint64_t count = 1;
  for (size_t i = 4; i < idx.header; i += 4) {
    const uint64_t n = uint64_t{bytes[i]} << 24 | uint64_t{bytes[i + 1]} << 16 | uint64_t{bytes[i + 2]} << 8 | bytes[i + 3];
    idx.sizes.push_back(n);
    shape += (shape.empty() ? "" : "x") + std::to_string(n);
    if (__builtin_mul_overflow(count, n, &count)) count = std::numeric_limits<int64_t>::max();
  }
  if (count != bytes.size() - idx.header)
    throw ConfigError(quoted(file) + " has the wrong length: its header says " + shape + ", which takes " +
                      std::to_string(idx.header + count) + " bytes" + found);
  return idx;
}

std::string unknown_class(const std::string& name, const std::vector<std::string>& classes) {
  return "there is no class '" + name + "'" + hint(name, classes);
}

class IdxImages final : public Dataset {
 public:
  enum class Fit { exact, pad, resize };

  struct Options {
    std::filesystem::path images, labels;
    std::vector<std::string> folders, classes, only;
    Fit fit = Fit::exact;
    bool flip = false;
    std::optional<int64_t> limit;

    void declare(Fields& f) {
      f.field("images", images, "idx file of the images, gzip or not (required)");
      f.field("labels", labels, "idx file of the labels; absent: unlabelled");
      f.field("folders", folders, "folders to look for both files in: the first that has the images counts; absent: the current one");
      f.field("classes", classes, "names of the classes, by label; absent: '0', '1', ...");
      f.field("only", only, "classes whose images are used; they become classes 0, 1, ... in this order; absent: all");
      f.choice("fit", fit, "exact: the sizes are the model's; pad: black around (grey repeated over 3 channels); resize: scaled (same)",
               {{"exact", Fit::exact}, {"pad", Fit::pad}, {"resize", Fit::resize}});
      f.field("flip", flip, "mirror half of the images left to right");
      f.field("limit", limit, "use at most this many, from the first on", at_least(1));
      f.require(classes.empty() || !labels.empty(), "classes", "needs 'labels'");
      f.require(only.empty() || !labels.empty(), "only", "needs 'labels'");
      for (auto name = only.begin(); name != only.end(); ++name) {
        if (!classes.empty() && std::find(classes.begin(), classes.end(), *name) == classes.end())
          f.require(false, "only", unknown_class(*name, classes));
        if (std::find(only.begin(), name, *name) != name) f.require(false, "only", "'" + *name + "' is given twice");
      }
    }
  };

  static void check(const Options& o, const Context& context) {
    if (o.images.empty()) throw ConfigError("missing 'images' (the idx file of the images)");
    if (o.fit != Fit::exact && context.shape.channels != 1 && context.shape.channels != 3)
      throw ConfigError("idx images are grey: 1 channel, or repeated over 3; the model wants " + context.shape.text());
  }

  IdxImages(Options options, const Context& context)
      : o_(placed(std::move(options))), shape_(context.shape), images_(read_idx(o_.images, 3, "images")) {
    size_ = static_cast<int64_t>(images_.sizes[0]);
    height_ = static_cast<int64_t>(images_.sizes[1]);
    width_ = static_cast<int64_t>(images_.sizes[2]);
    check_shape();
    if (!o_.labels.empty()) read_labels();
    if (!o_.only.empty()) choose();
    if (o_.limit) size_ = std::min(size_, *o_.limit);
  }

  int64_t size() const override { return size_; }
  const std::vector<std::string>& classes() const override { return classes_; }

  Annotation read(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    if (index < 0 || index >= size_) throw std::out_of_range("idx: image " + std::to_string(index) + " of " + std::to_string(size_));
    const int64_t at = chosen_.empty() ? index : chosen_[size_t(index)];
    Image image(height_, width_, 1);
    std::copy_n(images_.data() + at * height_ * width_, height_ * width_, image.pixels.begin());
    if (o_.fit == Fit::resize) image = resize(image, shape_.height, shape_.width);
    if (o_.flip && SplitMix(draw).coin()) image = flip_horizontal(image);
    write(image, pixels);
    const int64_t label = labels_.bytes.empty() ? -1 : labels_.data()[at];
    return {.label = chosen_.empty() ? label : numbers_[size_t(label)], .caption = {}};
  }

 private:
  /// Returns the options with the paths of the first folder that has the images; of the first folder, if none has them.
  static Options placed(Options o) {
    if (o.folders.empty()) return o;
    const auto has_images = [&](const std::string& folder) { return std::filesystem::exists(folder / o.images); };
    const auto found = std::find_if(o.folders.begin(), o.folders.end(), has_images);
    const std::filesystem::path folder = found == o.folders.end() ? o.folders.front() : *found;
    o.images = folder / o.images;
    if (!o.labels.empty()) o.labels = folder / o.labels;
    return o;
  }

  void check_shape() const {
    const ImageShape found{1, height_, width_};
    if (height_ == 0 || width_ == 0 || size_ == 0) throw ConfigError(quoted(o_.images) + " holds no images");
    const std::string both = "the images of " + quoted(o_.images) + " are " + found.text() + ", the model wants " + shape_.text();
    if (o_.fit == Fit::exact && found != shape_) throw ConfigError(both + "; set fit to pad or resize");
    if (o_.fit == Fit::pad && (height_ > shape_.height || width_ > shape_.width)) throw ConfigError(both + "; fit: pad cannot shrink them");
  }

  void read_labels() {
    labels_ = read_idx(o_.labels, 1, "labels");
    if (labels_.sizes[0] != images_.sizes[0])
      throw ConfigError(quoted(o_.images) + " has " + std::to_string(size_) + " images, " + quoted(o_.labels) + " has " +
                        std::to_string(labels_.sizes[0]) + " labels");
    const uint8_t* largest = std::max_element(labels_.data(), labels_.data() + size_);
    classes_ = o_.classes;
    if (classes_.empty())
      for (int i = 0; i <= *largest; ++i) classes_.push_back(std::to_string(i));
    if (*largest >= classes_.size())
      throw ConfigError(quoted(o_.labels) + " has the label " + std::to_string(*largest) + " (image " +
                        std::to_string(largest - labels_.data()) + "), but 'classes' names " + std::to_string(classes_.size()));
  }

  /// Keeps the images of the classes of `only`.
  void choose() {
    numbers_.assign(classes_.size(), -1);
    for (size_t i = 0; i < o_.only.size(); ++i) {
      const auto known = std::find(classes_.begin(), classes_.end(), o_.only[i]);
      if (known == classes_.end()) throw ConfigError("only: " + unknown_class(o_.only[i], classes_));
      numbers_[static_cast<size_t>(known - classes_.begin())] = static_cast<int64_t>(i);
    }
    for (int64_t i = 0; i < size_; ++i)
      if (numbers_[labels_.data()[i]] >= 0) chosen_.push_back(i);
    if (chosen_.empty()) throw ConfigError("only: " + quoted(o_.labels) + " has no image of these classes");
    size_ = static_cast<int64_t>(chosen_.size());
    classes_ = o_.only;
  }

  /// The image in the middle, black around it, the same in every channel.
  void write(const Image& image, std::span<float> pixels) const {
    const int64_t top = (shape_.height - image.height) / 2, left = (shape_.width - image.width) / 2;
    std::fill(pixels.begin(), pixels.end(), -1.0f);
    const uint8_t* from = image.pixels.data();
    for (int64_t y = 0; y < image.height; ++y) {
      float* to = pixels.data() + (top + y) * shape_.width + left;
      for (int64_t x = 0; x < image.width; ++x) *to++ = static_cast<float>(*from++) / 127.5f - 1;
    }
    const int64_t plane = shape_.height * shape_.width;
    for (int64_t c = 1; c < shape_.channels; ++c) std::copy_n(pixels.data(), plane, pixels.data() + c * plane);
  }

  Options o_;
  ImageShape shape_;
  Idx images_, labels_;
  int64_t size_ = 0, height_ = 0, width_ = 0;
  std::vector<std::string> classes_;
  std::vector<int64_t> chosen_, numbers_;  ///< of `only`: the images that are used, and the new number of each class (-1 = not used)
};

}  // namespace

void register_dataset_idx(Registry& r) { r.add<Dataset, IdxImages>("idx", "images in the format of MNIST, from idx files (gzip or not)"); }

}  // namespace brume::plugins
