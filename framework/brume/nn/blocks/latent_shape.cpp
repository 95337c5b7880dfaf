#include "brume/nn/blocks/latent_shape.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/config/errors.h"

namespace brume::nn {

ImageShape latent_shape(const ImageShape& image, int64_t channels, int64_t ratio) {
  if (image.height % ratio == 0 && image.width % ratio == 0) return {channels, image.height / ratio, image.width / ratio};
  const auto nearest = [&](int64_t side) { return std::max<int64_t>(1, (side + ratio / 2) / ratio) * ratio; };
  throw ConfigError(fmt::format("sides of images are multiples of {}, and {} by {} are not; the nearest is {} by {}", ratio, image.height,
                                image.width, nearest(image.height), nearest(image.width)));
}

}  // namespace brume::nn
