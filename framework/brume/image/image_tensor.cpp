// Images as tensors and back: channels last in an image, first in a tensor; [0, 255] and [-1, 1].
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "brume/image/image.h"

namespace brume {
namespace {

constexpr float half_range = 127.5f;

uint8_t pixel_of(float value) {
  const float level = std::round((value + 1) * half_range);
  return level >= 0 ? static_cast<uint8_t>(std::min(level, 255.0f)) : uint8_t{0};  // NaN compares false: black
}

}  // namespace

at::Tensor to_tensor(const Image& image) {
  auto tensor = at::empty({image.channels, image.height, image.width}, at::TensorOptions().dtype(at::kFloat).device(at::kCPU));
  float* to = tensor.data_ptr<float>();
  const int64_t count = image.height * image.width;
  for (int64_t c = 0; c < image.channels; ++c) {
    const uint8_t* from = image.pixels.data() + c;
    for (int64_t i = 0; i < count; ++i) *to++ = static_cast<float>(from[i * image.channels]) / half_range - 1;
  }
  return tensor;
}

Image to_image(const at::Tensor& tensor) {
  const bool is_image = tensor.dim() == 3 && (tensor.size(0) == 1 || tensor.size(0) == 3) && tensor.is_floating_point();
  if (!is_image) {
    throw std::logic_error(fmt::format("to_image takes a floating tensor of shape [1 or 3, height, width], not {} [{}]",
                                       c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ", ")));
  }
  const auto values = tensor.detach().to(at::TensorOptions().dtype(at::kFloat).device(at::kCPU)).contiguous();
  Image image(values.size(1), values.size(2), values.size(0));
  const float* from = values.data_ptr<float>();
  const int64_t count = image.height * image.width;
  for (int64_t c = 0; c < image.channels; ++c) {
    uint8_t* to = image.pixels.data() + c;
    for (int64_t i = 0; i < count; ++i) to[i * image.channels] = pixel_of(*from++);
  }
  return image;
}

void write_png(const std::string& path, const at::Tensor& image) { write_png(path, to_image(image)); }

}  // namespace brume
