#include "brume/image/loss_mask.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "brume/config/errors.h"
#include "brume/files/mapped_file.h"
#include "brume/image/image_finder.h"
#include "brume/image/image_header.h"

namespace brume {
namespace fs = std::filesystem;

void LossMask::declare(Fields& f) {
  f.field("masks", folder,
          "a folder with an image of the same name for each: white counts in the loss, black does not; absent: all counts");
  f.field("alpha_mask", alpha, "transparent parts of images do not count in the loss");
  f.require(!alpha || folder.empty(), "alpha_mask", "give masks or alpha_mask, not both");
}

fs::path LossMask::file_of(const fs::path& name) const {
  for (const std::string& extension : image_extensions()) {
    const fs::path file = fs::path(folder / name).replace_extension(extension);
    if (fs::is_regular_file(file)) return file;
  }
  throw ConfigError(fmt::format("'{}' has no mask: there is no '{}' with an extension of an image", name.string(),
                                fs::path(folder / name).replace_extension().string()));
}

namespace {

void same_size(const fs::path& image, const fs::path& mask) {
  const auto header = [](const fs::path& file) { return read_image_header(MappedFile::open(file.string())->bytes(), file.string()); };
  const ImageHeader a = header(image), b = header(mask);
  if (a.height != b.height || a.width != b.width)
    throw ConfigError(
        fmt::format("'{}' is {}x{}, and its mask '{}' is {}x{}", image.string(), a.height, a.width, mask.string(), b.height, b.width));
}

}  // namespace

void LossMask::read(const ResizeCrop& fit, const fs::path& image, const fs::path& name, const ImageShape& shape, uint64_t draw,
                    std::span<float> weights) const {
  const ImageShape grey{1, shape.height, shape.width};
  const fs::path file = alpha ? image : file_of(name);
  if (!alpha) same_size(image, file);
  const auto mapped = MappedFile::open(file.string());
  ResizeCrop on_black = fit;
  on_black.background = ResizeCrop::Background::black;
  on_black.read(mapped->bytes(), file.string(), grey, draw, weights);
  if (!alpha) {
    for (float& w : weights) w = (w + 1) / 2;
    return;
  }
  // On white it is lighter by 2 (1 - alpha).
  ResizeCrop on_white = fit;
  on_white.background = ResizeCrop::Background::white;
  std::vector<float> white(weights.size());
  on_white.read(mapped->bytes(), file.string(), grey, draw, white);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = std::clamp(1 - (white[i] - weights[i]) / 2, 0.0f, 1.0f);
}

}  // namespace brume
