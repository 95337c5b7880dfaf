#pragma once
// Which parts of images count in the loss: a mask per image, or the image's own transparency.
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "brume/image/resize_crop.h"

namespace brume {

struct LossMask {
  std::filesystem::path folder;  ///< of masks; empty = none
  bool alpha = false;

  void declare(Fields& f);
  bool any() const { return alpha || !folder.empty(); }
  /// Returns the mask of an image by its name relative to the folder of images, with any extension of an image. Throws ConfigError if it
  /// is missing.
  std::filesystem::path file_of(const std::filesystem::path& name) const;
  /// Writes the weights of the pixels of an image, in [0, 1], that `fit` reads for the same draw. `image`: its file, called `name` relative
  /// to its folder.
  void read(const ResizeCrop& fit, const std::filesystem::path& image, const std::filesystem::path& name, const ImageShape& shape,
            uint64_t draw, std::span<float> weights) const;
};

}  // namespace brume
