// Image files with captions: from a table (TSV, CSV or JSON lines, one row per image; several rows of one image are several captions), or
// from a .txt with the name of each image (several lines are several captions). One of an image's captions is drawn each time it is read.
//
// A folder without texts that has a metadata.jsonl or metadata.csv is read by that, as Hugging Face's image folders are: the columns
// file_name and text, unless others are named. The tags of captions can be shuffled and dropped.
//
// A held-out split is of images, by the hash of their names as the table has them, or relative to the folder: it stays the same when
// images are added.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "brume/config/errors.h"
#include "brume/config/fields.h"
#include "brume/config/number.h"
#include "brume/config/registry.h"
#include "brume/core/buckets.h"
#include "brume/core/dataset.h"
#include "brume/core/image_files.h"
#include "brume/core/loss_weights.h"
#include "brume/core/seed.h"
#include "brume/data/caption_edits.h"
#include "brume/data/caption_table.h"
#include "brume/data/split.h"
#include "brume/files/mapped_file.h"
#include "brume/files/text_file.h"
#include "brume/image/aspect_buckets.h"
#include "brume/image/image_finder.h"
#include "brume/image/image_header.h"
#include "brume/image/loss_mask.h"
#include "brume/image/resize_crop.h"

namespace brume::plugins {
namespace {

namespace fs = std::filesystem;

std::string quoted(const fs::path& file) { return "'" + file.string() + "'"; }

/// Mistakes of the same kind: the first ten are named, the others counted.
class Mistakes {
 public:
  void add(std::string text) {
    if (++count_ <= 10) first_.push_back({{}, "", std::move(text)});
  }
  void raise() {
    if (count_ == 0) return;
    if (count_ > 10) first_.push_back({{}, "", "and " + std::to_string(count_ - 10) + " more"});
    throw ConfigError(first_);
  }

 private:
  std::vector<Problem> first_;
  size_t count_ = 0;
};

class CaptionedFolder final : public Dataset, public ImageFiles, public Buckets, public LossWeights {
 public:
  struct Options {
    fs::path path, captions;
    CaptionColumns columns;
    ResizeCrop fit;
    LossMask mask;
    CaptionEdits edits;
    std::string caption_extension = "txt";
    std::string prompt;
    bool folder_repeats = false;
    std::optional<AspectBuckets> buckets;
    Split split;

    void declare(Fields& f) {
      f.field("path", path, "the folder that the table's file names start from (absent: the table's own); without a table, of the images");
      f.field("captions", captions, "a table, .tsv, .csv or .jsonl; absent: a .txt with the name of each image");
      f.field("file_column", columns.file, "column of the table with the image file");
      f.field("caption_columns", columns.captions, "columns of the table with the caption; the words of several are joined in this order");
      f.require(!columns.captions.empty(), "caption_columns", "must name at least one column", "names no column");
      f.field("class_column", columns.category, "column of the table with the image's class; absent: no classes");
      f.require(columns.category.empty() || !captions.empty(), "class_column", "needs 'captions', the table");
      f.field("caption_extension", caption_extension, "ending of the text with the name of each image");
      f.field("prompt", prompt, "caption of images without a text; empty = they are an error");
      f.field("folder_repeats", folder_repeats,
              "folders are called N_WORDS: their images are read N times per epoch, and WORDS is the caption of those without a text");
      f.require(!folder_repeats || captions.empty(), "folder_repeats", "needs a folder, and captions is a table");
      edits.declare(f);
      f.section("buckets", buckets,
                "trains on images of other proportions in a shape near their own, each batch of one shape; absent: one shape");
      mask.declare(f);
      fit.declare(f);
      split.declare(f, "of the images, by the hash of their names");
    }
  };

  static void check(const Options& o, const Context& context) {
    if (o.path.empty() && o.captions.empty())
      throw ConfigError("missing 'captions' (a table of images and captions), or 'path' (a folder with a .txt for each image)");
    ResizeCrop::check(context.shape);
    if (o.buckets) o.buckets->shapes(context.shape);
  }

  CaptionedFolder(Options options, const Context& context) : o_(std::move(options)), shape_(context.shape) {
    o_.captions.empty() ? read_folder() : read_table();
    if (images_.empty())
      throw ConfigError(
          quoted(source()) + " has no image" +
          (all_ > 0 ? " of the split '" + std::string(o_.split.word()) + "' (there are " + std::to_string(all_) + " in all)" : ""));
    if (o_.buckets) find_buckets();
    if (!o_.mask.folder.empty()) find_masks();
  }

  int64_t size() const override { return static_cast<int64_t>(images_.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }

  std::vector<ImageShape> buckets() const override { return shapes_; }
  size_t bucket_of(int64_t index) const override { return bucket_of_.at(size_t(index)); }
  Annotation read(int64_t index, uint64_t draw, std::span<float> pixels) const override { return read_as(index, draw, shape_, pixels); }
  Annotation read_bucket(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    return read_as(index, draw, shapes_[bucket_of(index)], pixels);
  }

  bool weighs() const override { return o_.mask.any(); }
  void read_weights(int64_t index, uint64_t draw, const ImageShape& shape, std::span<float> weights) const override {
    const fs::path& file = images_.at(size_t(index)).file;
    o_.mask.read(o_.fit, file, name_of(file), shape, draw, weights);
  }

  const Inventory& inventory() const override { return inventory_; }
  bool skips_errors() const override { return o_.fit.on_error == ResizeCrop::OnError::skip; }
  void check_image(int64_t index) const override {
    const std::string file = images_.at(static_cast<size_t>(index)).file.string();
    o_.fit.check_file(MappedFile::open(file)->bytes(), file, shape_);
  }

 private:
  struct Image {
    fs::path file;
    int64_t label = -1;
    std::vector<std::string> captions;
  };

  Annotation read_as(int64_t index, uint64_t draw, const ImageShape& shape, std::span<float> pixels) const {
    if (index < 0 || index >= size())
      throw std::out_of_range("captioned_folder: image " + std::to_string(index) + " of " + std::to_string(size()));
    const Image& image = images_[static_cast<size_t>(index)];
    const std::string file = image.file.string();
    const SizeIds sizes = o_.fit.read(MappedFile::open(file)->bytes(), file, shape, draw, pixels);
    constexpr uint64_t stream_of_captions = 1;
    const size_t chosen = SplitMix(mix_seed(draw, stream_of_captions)).below(image.captions.size());
    return {.label = image.label, .caption = o_.edits.apply(image.captions[chosen], draw), .sizes = sizes};
  }

  /// Finds the bucket of each image by its header. An image that cannot be read is of the first: reading it says so.
  void find_buckets() {
    shapes_ = o_.buckets->shapes(shape_);
    for (const Image& image : images_) {
      const std::string file = image.file.string();
      try {
        const ImageHeader header = read_image_header(MappedFile::open(file)->bytes(), file);
        bucket_of_.push_back(header.height > 0 && header.width > 0 ? nearest_shape(shapes_, header.height, header.width) : 0);
      } catch (const ConfigError&) {
        bucket_of_.push_back(0);
      }
    }
  }

  /// Returns the name of an image relative to the folder of images.
  fs::path name_of(const fs::path& file) const { return file.lexically_relative(!o_.path.empty() ? o_.path : o_.captions.parent_path()); }
  /// Names the images without a mask.
  void find_masks() const {
    Mistakes mistakes;
    for (const Image& image : images_) try {
        o_.mask.file_of(name_of(image.file));
      } catch (const ConfigError& e) {
        mistakes.add(e.what());
      }
    mistakes.raise();
  }

  const fs::path& source() const { return o_.captions.empty() ? o_.path : o_.captions; }

  void read_table() {
    const std::vector<CaptionRow> rows = read_caption_table(o_.captions.string(), o_.columns);
    const fs::path folder = o_.path.empty() ? o_.captions.parent_path() : o_.path;
    std::set<std::string> words;
    if (!o_.columns.category.empty())
      for (const CaptionRow& row : rows) words.insert(row.category);
    classes_.assign(words.begin(), words.end());
    std::map<std::string, size_t> known;
    Mistakes mistakes;
    for (const CaptionRow& row : rows) {
      const std::string where = o_.captions.string() + ":" + std::to_string(row.line) + ": ";
      const auto [at, fresh] = known.try_emplace(row.file, images_.size());
      if (fresh) {
        ++all_;
        const bool missing = !fs::is_regular_file(folder / row.file), other = !o_.split.has(row.file);
        if (missing && !skips_errors()) mistakes.add(where + "there is no image " + quoted(folder / row.file));
        if (missing || other) {
          inventory_.leave_out(missing ? "without an image file" : "of the other split", row.file);
          at->second = SIZE_MAX;
          continue;
        }
        images_.push_back({folder / row.file, -1, {}});
      }
      if (at->second == SIZE_MAX) continue;
      Image& image = images_[at->second];
      const auto label = std::lower_bound(classes_.begin(), classes_.end(), row.category) - classes_.begin();
      if (!classes_.empty() && !fresh && image.label != label)
        mistakes.add(where + "'" + row.file + "' is of '" + row.category + "', and of '" + classes_[size_t(image.label)] + "' before");
      if (!classes_.empty()) image.label = label;
      image.captions.push_back(row.caption);
      ++inventory_.captions;
    }
    mistakes.raise();
  }

  void read_folder() {
    if (!fs::is_directory(o_.path)) throw ConfigError("there is no folder " + quoted(o_.path));
    ImageFinder finder(o_.path, image_extensions(), ImageFinder::Texts::listed, inventory_, o_.caption_extension);
    ImageFinder::Listing found = finder.find(o_.path);
    if (found.texts.empty() && find_metadata()) return read_table();
    std::sort(found.images.begin(), found.images.end(), [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
    std::map<std::string, fs::path> texts;  // by their paths without extensions
    for (const fs::path& text : found.texts) {
      fs::path& known = texts[fs::path(text).replace_extension().native()];
      if (known.empty() || text.extension() == "." + o_.caption_extension) known = text;
    }
    std::set<fs::path> without_image(found.texts.begin(), found.texts.end());
    Mistakes mistakes;
    for (const fs::path& file : found.images) {
      ++all_;
      const auto text = texts.find(fs::path(file).replace_extension().native());
      if (text != texts.end()) without_image.erase(text->second);
      const std::string name = file.lexically_relative(o_.path).generic_string();
      if (!o_.split.has(name)) {
        inventory_.leave_out("of the other split", name);
        continue;
      }
      try {
        const auto [repeats, words] = named_folder(name);
        const std::string& usual = words.empty() ? o_.prompt : words;
        const bool without_text = text == texts.end() && !usual.empty();
        Image image{file, -1, without_text ? std::vector{usual} : captions_of(file, text == texts.end() ? fs::path() : text->second)};
        inventory_.captions += int64_t(image.captions.size());
        images_.insert(images_.end(), size_t(repeats), image);
      } catch (const ConfigError& e) {
        if (!skips_errors()) mistakes.add(e.what());
        inventory_.leave_out("without a caption that can be read", name);
      }
    }
    for (const fs::path& text : without_image)
      inventory_.leave_out("captions without an image", text.lexically_relative(o_.path).generic_string());
    mistakes.raise();
  }

  /// Takes over the table of a folder of images that has one. Returns false if it has none.
  bool find_metadata() {
    for (const char* name : {"metadata.jsonl", "metadata.csv"}) {
      if (!fs::is_regular_file(o_.path / name)) continue;
      const CaptionColumns usual;
      if (o_.columns.file == usual.file) o_.columns.file = "file_name";
      if (o_.columns.captions == usual.captions) o_.columns.captions = {"text"};
      o_.captions = o_.path / name;
      inventory_ = {};
      return true;
    }
    return false;
  }

  /// Returns N and WORDS of the folder N_WORDS that an image lies in, seen from the root; 1 and "" without such a folder, or the option.
  std::pair<int64_t, std::string> named_folder(const std::string& image) const {
    const std::string folder = image.substr(0, image.find('/'));
    const size_t underscore = folder.find('_');
    if (!o_.folder_repeats || folder.size() == image.size() || underscore == folder.npos) return {1, ""};
    const auto repeats = parse_number<int64_t>(folder.substr(0, underscore));
    if (!repeats || *repeats < 1) return {1, ""};
    if (*repeats > 10000) throw ConfigError("folder " + quoted(o_.path / folder) + ": its images would be read more than 10000 times");
    return {*repeats, folder.substr(underscore + 1)};
  }

  /// Returns the lines of the file `text`; an empty path means that there is no such file.
  std::vector<std::string> captions_of(const fs::path& image, const fs::path& text) const {
    if (text.empty())
      throw ConfigError(quoted(image) + " has no caption: there is no " + quoted(fs::path(image).replace_extension(o_.caption_extension)));
    const std::string content = read_text(text.string());
    std::vector<std::string> captions;
    for (const std::string_view line : lines_of(content))
      if (!line.empty()) captions.emplace_back(line);
    if (captions.empty()) captions.emplace_back();  // an empty file is the empty caption
    return captions;
  }

  Options o_;
  ImageShape shape_;
  std::vector<Image> images_;
  std::vector<ImageShape> shapes_;  ///< of the buckets; empty = one shape
  std::vector<size_t> bucket_of_;   ///< by image
  std::vector<std::string> classes_;
  Inventory inventory_;
  size_t all_ = 0;  // images, of every split
};

}  // namespace

void register_dataset_captioned_folder(Registry& r) {
  r.add<Dataset, CaptionedFolder>("captioned_folder", "image files with captions, from a table or from a .txt for each image");
}

}  // namespace brume::plugins
