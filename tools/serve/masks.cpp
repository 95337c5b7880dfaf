#include <algorithm>

#include "brume/config/errors.h"
#include "brume/image/image.h"
#include "brume/image/image_codec.h"
#include "serve/http.h"
#include "serve/pictures.h"

namespace brume::tools {

std::string mask_of_transparency(std::string_view bytes, int64_t most_pixels) try {
  check_picture(bytes, "mask", most_pixels);
  // On white less on black: the colours cancel out, 255 (1 - alpha) is left.
  Image mask = decode_image_file(bytes, "mask", 1, 255);
  const Image on_black = decode_image_file(bytes, "mask", 1, 0);
  for (size_t i = 0; i < mask.pixels.size(); ++i) mask.pixels[i] = uint8_t(mask.pixels[i] - std::min(mask.pixels[i], on_black.pixels[i]));
  if (std::all_of(mask.pixels.begin(), mask.pixels.end(), [](uint8_t p) { return p == 0; }))
    throw HttpError(400, "mask: has no transparent place, and these are what is edited", "mask");
  return encode_png(mask);
} catch (const ConfigError& e) {
  throw HttpError(400, e.what(), "mask");
}

}  // namespace brume::tools
