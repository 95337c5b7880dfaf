#pragma once
// The resizing that scores of other programs are made with.
#include <cstdint>

#include "brume/image/image.h"

namespace brume {

/// Resizes as Pillow does with BICUBIC: Keys' cubic convolution (Keys 1981, eq. 4, a = -1/2), stretched by the factor by which an axis
/// shrinks (so that it does not alias), first along rows and then along columns, with weights of 22 bits and a rounding to 8 bits after
/// each.
Image resize_as_pillow(const Image& image, int64_t height, int64_t width);
/// Returns the same with LANCZOS: the sinc function, windowed by its own centre lobe stretched to three (Duchon 1979).
Image resize_as_pillow_lanczos(const Image& image, int64_t height, int64_t width);

}  // namespace brume
