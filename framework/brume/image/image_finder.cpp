#include "brume/image/image_finder.h"

#include <algorithm>
#include <iterator>
#include <system_error>

#include "brume/config/errors.h"
#include "brume/config/utf8.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

std::string dotted(const std::string& extension) { return lower_case(extension.starts_with('.') ? extension : "." + extension); }

/// Returns the path without links; as it is if that cannot be found out.
fs::path without_links(const fs::path& folder) {
  std::error_code error;
  const fs::path found = fs::canonical(folder, error);
  return error ? folder : found;
}

void append(std::vector<fs::path>& to, std::vector<fs::path> from) {
  to.insert(to.end(), std::move_iterator(from.begin()), std::move_iterator(from.end()));
}

}  // namespace

const std::vector<std::string>& image_extensions() {
  static const std::vector<std::string> all = {"png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "ppm", "pgm"};
  return all;
}

ImageFinder::ImageFinder(const fs::path& root, const std::vector<std::string>& extensions, Texts texts, Inventory& inventory,
                         const std::string& text_extension)
    : root_(root),
      texts_(texts == Texts::listed),
      text_extension_(dotted(text_extension)),
      inventory_(inventory),
      open_{without_links(root)} {
  for (const std::string& extension : extensions) extensions_.push_back(dotted(extension));
}

ImageFinder::Listing ImageFinder::find(const fs::path& folder) {
  open_.push_back(without_links(folder));
  Listing found = list(folder);
  for (const fs::path& below : found.folders) {
    Listing more = find(below);
    append(found.images, std::move(more.images));
    append(found.texts, std::move(more.texts));
  }
  open_.pop_back();
  return found;
}

ImageFinder::Listing ImageFinder::list(const fs::path& folder) {
  Listing listing;
  std::error_code error;
  std::vector<fs::path> entries;
  for (fs::directory_iterator at(folder, error); !error && at != fs::directory_iterator(); at.increment(error))
    entries.push_back(at->path());
  if (error) throw ConfigError("cannot read the folder '" + folder.string() + "': " + error.message());
  std::sort(entries.begin(), entries.end(), [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
  for (const fs::path& entry : entries) add(entry, listing);
  return listing;
}

void ImageFinder::add(const fs::path& entry, Listing& listing) {
  if (entry.filename().native().starts_with('.')) return leave_out("hidden", entry);
  std::error_code dangling;
  const fs::file_type type = fs::status(entry, dangling).type();
  const std::string extension = lower_case(entry.extension().string());
  if (type == fs::file_type::directory) {
    if (fs::is_symlink(entry) && leads_back(entry)) return leave_out("linked back to a folder that holds it", entry);
    listing.folders.push_back(entry);
  } else if (type == fs::file_type::not_found || type == fs::file_type::none) {  // none: links in a circle
    leave_out("linked to nothing", entry);
  } else if (type != fs::file_type::regular) {
    leave_out("no regular file", entry);
  } else if (std::find(extensions_.begin(), extensions_.end(), extension) != extensions_.end()) {
    listing.images.push_back(entry);
  } else if (texts_ && extension == text_extension_) {
    listing.texts.push_back(entry);
  } else {
    leave_out("no image by its name", entry);
  }
}

void ImageFinder::leave_out(std::string_view reason, const fs::path& entry) {
  inventory_.leave_out(reason, entry.lexically_relative(root_).generic_string());
}

bool ImageFinder::leads_back(const fs::path& folder) const {
  return std::find(open_.begin(), open_.end(), without_links(folder)) != open_.end();
}

}  // namespace brume
