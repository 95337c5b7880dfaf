// Image files in a folder, one sub-folder per class; or directly in the folder, without labels.
//
// The files are listed and sorted by name when the set is opened, so indices and labels do not depend on the file system; they
// are decoded when read.
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
#include "brume/core/image_files.h"
#include "brume/files/mapped_file.h"
#include "brume/image/image_finder.h"
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

class ImageFolder final : public Dataset, public ImageFiles {
 public:
  struct Options {
    fs::path path;
    ResizeCrop fit;
    std::vector<std::string> extensions = image_extensions();

    void declare(Fields& f) {
      f.field("path", path, "a folder of images, or of one sub-folder of images per class (required)");
      fit.declare(f);
      f.field("extensions", extensions, "endings of image files, in upper or lower case");
      f.require(!extensions.empty(), "extensions", "needs one at least");
    }
  };

  static void check(const Options& o, const Context& context) {
    if (o.path.empty()) throw ConfigError("missing 'path' (the folder of the images)");
    ResizeCrop::check(context.shape);
  }

  ImageFolder(Options options, const Context& context) : o_(std::move(options)), shape_(context.shape) {
    std::error_code error;
    const fs::file_type type = fs::status(o_.path, error).type();
    if (type == fs::file_type::not_found)
      throw ConfigError("there is no folder " + quoted(o_.path) + (o_.path.is_absolute() ? "" : " in " + fs::current_path().string()));
    if (type != fs::file_type::directory && type != fs::file_type::none) throw ConfigError(quoted(o_.path) + " is not a folder");
    ImageFinder finder(o_.path, o_.extensions, ImageFinder::Texts::left_out, inventory_);
    const ImageFinder::Listing root = finder.list_root();
    if (!root.images.empty() && !root.folders.empty())
      throw ConfigError(quoted(o_.path) + " has both images (" + root.images[0].filename().string() + ") and sub-folders (" +
                        root.folders[0].filename().string() + "); images of a class belong in its sub-folder");
    for (const fs::path& image : root.images) files_.push_back({image, -1});
    for (const fs::path& folder : root.folders) add_class(folder, finder.find(folder).images);
    if (files_.empty()) throw ConfigError("there is no image in " + quoted(o_.path) + looked_for() + left_out());
  }

  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }

  Annotation read(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    if (index < 0 || index >= size())
      throw std::out_of_range("image_folder: image " + std::to_string(index) + " of " + std::to_string(size()));
    const auto& [file, label] = files_[static_cast<size_t>(index)];
    const SizeIds sizes = o_.fit.read(MappedFile::open(file.string())->bytes(), file.string(), shape_, draw, pixels);
    return {.label = label, .sizes = sizes};
  }

  const Inventory& inventory() const override { return inventory_; }
  bool skips_errors() const override { return o_.fit.on_error == ResizeCrop::OnError::skip; }
  void check_image(int64_t index) const override {
    const std::string file = files_.at(static_cast<size_t>(index)).path.string();
    o_.fit.check_file(MappedFile::open(file)->bytes(), file, shape_);
  }

 private:
  struct File {
    fs::path path;
    int64_t label;
  };

  std::string looked_for() const { return " (looked for " + joined(o_.extensions) + ")"; }

  std::string left_out() const { return inventory_.left_out().empty() ? "" : "; left out: " + inventory_.text(); }

  void add_class(const fs::path& folder, const std::vector<fs::path>& images) {
    if (images.empty()) throw ConfigError("there is no image in the class folder " + quoted(folder) + looked_for());
    for (const fs::path& image : images) files_.push_back({image, static_cast<int64_t>(classes_.size())});
    classes_.push_back(folder.filename().string());
  }

  Options o_;
  ImageShape shape_;
  Inventory inventory_;
  std::vector<File> files_;
  std::vector<std::string> classes_;
};

}  // namespace

void register_dataset_image_folder(Registry& r) { r.add<Dataset, ImageFolder>("image_folder", "image files, one sub-folder per class"); }

}  // namespace brume::plugins
