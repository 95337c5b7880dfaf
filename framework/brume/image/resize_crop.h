#pragma once
// How a picture of any size becomes a training image: what the data sets of image files share.
#include <cstdint>
#include <span>
#include <string>

#include "brume/config/fields.h"
#include "brume/core/dataset.h"
#include "brume/image/image.h"

namespace brume {

/// A wanted image is cut from the decoded one after an optional resize: `smallest_side` keeps the proportions and makes the image just
/// large enough, `stretch` does not keep them.
struct ResizeCrop {
  enum class Resize { smallest_side, stretch, none };
  enum class Crop { center, random, none };
  enum class Background { white, grey, black };
  enum class OnError { stop, skip };
  Resize resize = Resize::smallest_side;
  Crop crop = Crop::center;
  bool flip = false;
  Background background = Background::white;
  OnError on_error = OnError::stop;

  void declare(Fields& f);
  /// Throws ConfigError if images of this shape cannot be read from files.
  static void check(const ImageShape& shape);
  /// Writes `bytes` of an image file, called `name` in errors, as pixels of `shape` in [-1, 1]. `draw` decides on crop and mirror. Returns
  /// the size in the file and the place of the crop in the resized image, mirrored if the image is.
  SizeIds read(std::string_view bytes, const std::string& name, const ImageShape& shape, uint64_t draw, std::span<float> pixels) const;
  /// Throws ConfigError if `read` would, as far as the file shows that without decoding.
  void check_file(std::string_view bytes, const std::string& name, const ImageShape& shape) const;

 private:
  struct Size {
    int64_t height, width;
  };
  Size resized(Size stored, const ImageShape& shape, const std::string& name) const;
};

}  // namespace brume
