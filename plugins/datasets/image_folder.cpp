// Image files in a folder, one sub-folder per class; or directly in the folder, without labels.
//
// The files are listed and sorted by name when the set is opened, so indices and labels do not depend on the file system; they
// are decoded when read.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "brume/config/errors.h"
#include "brume/config/fields.h"
#include "brume/config/registry.h"
#include "brume/core/dataset.h"
#include "brume/files/mapped_file.h"
#include "brume/image/resize_crop.h"

namespace brume::plugins {
namespace {

namespace fs = std::filesystem;

std::string quoted(const fs::path& file) { return "'" + file.string() + "'"; }

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

/// ASCII only: the locale must not decide what belongs to a data set.
std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

/// What a folder holds, hidden entries (".git", "._a.png") left out, each list sorted byte by byte.
struct Listing {
  std::vector<fs::path> images, folders;
};

Listing list(const fs::path& folder, const std::vector<std::string>& extensions) {
  std::error_code error;
  fs::directory_iterator at(folder, error);
  if (error) throw ConfigError("cannot read the folder " + quoted(folder) + ": " + error.message());
  Listing found;
  for (; at != fs::directory_iterator(); at.increment(error)) {
    const fs::path& entry = at->path();
    if (entry.filename().native().front() == '.') continue;
    std::error_code dangling;
    if (fs::is_directory(entry, dangling))
      found.folders.push_back(entry);
    else if (std::find(extensions.begin(), extensions.end(), lower(entry.extension().string())) != extensions.end())
      found.images.push_back(entry);
  }
  if (error) throw ConfigError("cannot read the folder " + quoted(folder) + ": " + error.message());
  const auto by_name = [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); };
  std::sort(found.images.begin(), found.images.end(), by_name);
  std::sort(found.folders.begin(), found.folders.end(), by_name);
  return found;
}

class ImageFolder final : public Dataset {
 public:
  struct Options {
    fs::path path;
    ResizeCrop fit;
    std::vector<std::string> extensions = {"png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "ppm", "pgm"};

    void declare(Fields& f) {
      f.field("path", path, "a folder of images, or of one sub-folder of images per class (required)");
      fit.declare(f);
      f.field("extensions", extensions, "which files are images, in any case");
      f.require(!extensions.empty(), "extensions", "needs one at least");
    }
  };

  static void check(const Options& o, const Context& context) {
    if (o.path.empty()) throw ConfigError("missing 'path' (the folder of the images)");
    ResizeCrop::check(context.shape);
  }

  ImageFolder(Options options, const Context& context) : o_(std::move(options)), shape_(context.shape) {
    for (const std::string& e : o_.extensions) extensions_.push_back(lower(e.rfind('.', 0) == 0 ? e : "." + e));
    std::error_code error;
    const fs::file_type type = fs::status(o_.path, error).type();
    if (type == fs::file_type::not_found)
      throw ConfigError("there is no folder " + quoted(o_.path) + (o_.path.is_absolute() ? "" : " in " + fs::current_path().string()));
    if (type != fs::file_type::directory && type != fs::file_type::none) throw ConfigError(quoted(o_.path) + " is not a folder");
    const Listing root = list(o_.path, extensions_);
    if (!root.images.empty() && !root.folders.empty())
      throw ConfigError(quoted(o_.path) + " has both images (" + root.images[0].filename().string() + ") and sub-folders (" +
                        root.folders[0].filename().string() + "); images of a class belong in its sub-folder");
    for (const fs::path& image : root.images) files_.push_back({image, -1});
    for (const fs::path& folder : root.folders) add_class(folder);
    if (files_.empty()) throw ConfigError("there is no image in " + quoted(o_.path) + looked_for());
  }

  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }

  Annotation read(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    if (index < 0 || index >= size())
      throw std::out_of_range("image_folder: image " + std::to_string(index) + " of " + std::to_string(size()));
    const auto& [file, label] = files_[static_cast<size_t>(index)];
    o_.fit.read(MappedFile::open(file.string())->bytes(), file.string(), shape_, draw, pixels);
    return {.label = label, .caption = {}};
  }

 private:
  struct File {
    fs::path path;
    int64_t label;
  };

  std::string looked_for() const { return " (looked for " + joined(o_.extensions) + ")"; }

  void add_class(const fs::path& folder) {
    const size_t before = files_.size();
    add_images(folder);
    if (files_.size() == before) throw ConfigError("there is no image in the class folder " + quoted(folder) + looked_for());
    classes_.push_back(folder.filename().string());
  }
  /// All below `folder`, which is of the class that is being added. Links to folders are not followed: they may form a circle.
  void add_images(const fs::path& folder) {
    const Listing found = list(folder, extensions_);
    for (const fs::path& image : found.images) files_.push_back({image, static_cast<int64_t>(classes_.size())});
    for (const fs::path& below : found.folders)
      if (!fs::is_symlink(below)) add_images(below);
  }

  Options o_;
  ImageShape shape_;
  std::vector<std::string> extensions_;  // with their dots, in lower case
  std::vector<File> files_;
  std::vector<std::string> classes_;
};

}  // namespace

void register_dataset_image_folder(Registry& r) { r.add<Dataset, ImageFolder>("image_folder", "image files, one sub-folder per class"); }

}  // namespace brume::plugins
