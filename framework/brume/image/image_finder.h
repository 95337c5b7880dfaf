#pragma once
// Which files of a folder are images: the same for every data set.
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "brume/core/image_files.h"

namespace brume {

/// Returns the extensions of image files, in small letters and without a dot.
const std::vector<std::string>& image_extensions();

/// Lists images, hidden files and folders left out. Links to folders are followed, except back to a folder that holds the link. What is
/// left out is counted in an inventory, by its name relative to the root.
class ImageFinder final {
 public:
  struct Listing {
    std::vector<std::filesystem::path> images, texts, folders;  ///< texts: if they are asked for; each sorted byte by byte
  };
  enum class Texts { left_out, listed };

  /// Makes a finder. `root` must be a folder; `extensions` count in any case, with or without a dot; `inventory` must outlive the finder.
  ImageFinder(const std::filesystem::path& root, const std::vector<std::string>& extensions, Texts texts, Inventory& inventory,
              const std::string& text_extension = "txt");

  /// Returns what lies directly in the root. Throws ConfigError if a folder cannot be read.
  Listing list_root() { return list(root_); }
  /// Returns the images and texts in a folder within the root and below it: those of a folder before those of its folders.
  Listing find(const std::filesystem::path& folder);

 private:
  Listing list(const std::filesystem::path& folder);
  void add(const std::filesystem::path& entry, Listing& listing);
  void leave_out(std::string_view reason, const std::filesystem::path& entry);
  bool leads_back(const std::filesystem::path& folder) const;

  std::filesystem::path root_;
  std::vector<std::string> extensions_;  ///< in small letters, with their dots
  bool texts_;
  std::string text_extension_;  ///< in small letters, with its dot
  Inventory& inventory_;
  std::vector<std::filesystem::path> open_;  ///< the folders that are being listed, from the root on, without links
};

}  // namespace brume
