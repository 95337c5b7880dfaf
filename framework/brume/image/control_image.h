#pragma once
// Images that steer a model (core/control.h), and what makes them of photographs.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "brume/image/image.h"

namespace brume {

/// Returns the names of what makes a control image of a photograph:
///   canny    edges (Canny 1986), white on black, of the grey image at thresholds 100 and 200
///   blur     a Gaussian of standard deviation 5 (pixels)
///   grey     the luma in all channels
///   tile     an eighth of the size and back, as the networks that add detail are trained with
///   inpaint  the image, -1 where a mask says that it is to be generated
///   lines    dark lines on white, turned: what is darker than its surroundings, white on black
std::vector<std::string> control_preprocessors();
/// Returns those that need no mask.
std::vector<std::string> image_preprocessors();

/// How a control image is read.
struct ControlImageUse {
  int64_t height = 0, width = 0;  ///< of the images that are made; 0 = the image keeps its size
  at::Tensor mask{};              ///< [N, 1, H, W] in [0, 1], 1 = to generate; undefined = none; for `inpaint`
};

/// Returns [1, 3, H, W] in [0, 1] of "FILE" or "PREPROCESSOR:FILE"; [N, ...] for `inpaint`, whose masked pixels are -1. Resizes an image of
/// another size by Pillow's Lanczos and warns that it does. Throws ConfigError if there is no such file, or no such preprocessor.
at::Tensor control_image(const std::string& asked, const ControlImageUse& use);
/// Returns [B, 3, H, W] in [0, 1] of images [B, 1 or 3, H, W] in [-1, 1] after a preprocessor that needs no mask. Throws ConfigError as
/// above.
at::Tensor control_images(const at::Tensor& images, const std::string& preprocessor);
/// Returns [1, 1, H, W] in [0, 1] of the luma of a file, resized.
at::Tensor control_mask(const std::string& file, int64_t height, int64_t width);

/// Returns the image after a preprocessor that needs no mask. Throws ConfigError with the nearest name if no preprocessor has it.
Image preprocessed(const Image& image, const std::string& preprocessor);

}  // namespace brume
