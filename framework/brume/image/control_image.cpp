#include "brume/image/control_image.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <opencv2/imgproc.hpp>

#include "brume/config/errors.h"
#include "brume/config/file_hint.h"
#include "brume/config/suggest.h"
#include "brume/core/warnings.h"
#include "brume/image/pillow_resize.h"

namespace brume {
namespace {

cv::Mat view_of(Image& image) {
  return {int(image.height), int(image.width), image.channels == 1 ? CV_8UC1 : CV_8UC3, image.pixels.data()};
}

cv::Mat luma_of(Image image) {
  cv::Mat grey;
  cv::cvtColor(view_of(image), grey, cv::COLOR_RGB2GRAY);
  return grey;
}

Image rgb_of(const cv::Mat& grey) {
  Image result(grey.rows, grey.cols, 3);
  cv::Mat to = view_of(result);
  cv::cvtColor(grey, to, cv::COLOR_GRAY2RGB);
  return result;
}

Image edges(const Image& image) {
  constexpr double low = 100, high = 200;
  cv::Mat found;
  cv::Canny(luma_of(image), found, low, high);
  return rgb_of(found);
}

Image blurred(Image image) {
  constexpr double sigma = 5;
  Image result(image.height, image.width, 3);
  cv::Mat to = view_of(result);
  cv::GaussianBlur(view_of(image), to, cv::Size(), sigma);
  return result;
}

Image coarse(const Image& image) {
  constexpr int64_t factor = 8;
  return resize(resize(image, std::max<int64_t>(1, image.height / factor), std::max<int64_t>(1, image.width / factor)), image.height,
                image.width);
}

/// Returns what is darker than its blurred surroundings, stretched to white.
Image dark_lines(const Image& image) {
  constexpr double sigma = 6, floor = 8;
  cv::Mat grey, around, dark;
  luma_of(image).convertTo(grey, CV_32F);
  cv::GaussianBlur(grey, around, cv::Size(), sigma);
  const cv::Mat difference = around - grey;
  dark = cv::max(difference, 0.0);
  double most = 0;
  cv::minMaxLoc(dark, nullptr, &most);
  cv::Mat bytes;
  dark.convertTo(bytes, CV_8U, 255 / std::max(most, floor));
  return rgb_of(bytes);
}

/// Returns "canny" and "photo.png" of "canny:photo.png"; "" and "photo.png" of "photo.png".
std::pair<std::string, std::string> parts(const std::string& asked) {
  const size_t colon = asked.find(':');
  if (std::filesystem::is_regular_file(asked) || colon == std::string::npos) return {"", asked};
  return {asked.substr(0, colon), asked.substr(colon + 1)};
}

void expect_file(const std::string& file) {
  if (!std::filesystem::is_regular_file(file))
    throw ConfigError(fmt::format("control image: there is no file '{}'{}", file, file_hint(file)));
}

at::Tensor masked_out(const at::Tensor& image, const ControlImageUse& use) {
  if (!use.mask.defined())
    throw ConfigError(
        "control image: inpaint makes the masked pixels of an image unknown, and the run has no mask (and no image to lay it over)");
  at::Tensor mask = use.mask.to(at::kCPU, at::kFloat);
  if (mask.size(2) != image.size(2) || mask.size(3) != image.size(3)) mask = at::upsample_nearest2d(mask, {image.size(2), image.size(3)});
  return image.expand({mask.size(0), -1, -1, -1}).masked_fill(mask > 0.5, -1);
}

}  // namespace

std::vector<std::string> control_preprocessors() { return {"canny", "blur", "grey", "tile", "inpaint", "lines"}; }

std::vector<std::string> image_preprocessors() {
  std::vector<std::string> names = control_preprocessors();
  std::erase(names, "inpaint");
  return names;
}

Image preprocessed(const Image& image, const std::string& preprocessor) {
  if (preprocessor == "canny") return edges(image);
  if (preprocessor == "blur") return blurred(image);
  if (preprocessor == "grey") return rgb_of(luma_of(image));
  if (preprocessor == "tile") return coarse(image);
  if (preprocessor == "lines") return dark_lines(image);
  const std::vector<std::string> known = control_preprocessors();
  throw ConfigError(
      fmt::format("control image: no preprocessor '{}'{}; there are {}", preprocessor, hint(preprocessor, known), fmt::join(known, ", ")));
}

at::Tensor control_image(const std::string& asked, const ControlImageUse& use) {
  const auto [preprocessor, file] = parts(asked);
  const std::vector<std::string> known = control_preprocessors();
  if (!preprocessor.empty() && std::find(known.begin(), known.end(), preprocessor) == known.end())
    preprocessed(Image(1, 1, 3), preprocessor);
  expect_file(file);
  Image image = read_image(file, 3);
  if (use.height > 0 && (image.height != use.height || image.width != use.width)) {
    warn(fmt::format("control image {} is {}x{}, and the images are {}x{}: it is resized (Lanczos), without keeping its proportions", file,
                     image.width, image.height, use.width, use.height));
    image = resize_as_pillow_lanczos(image, use.height, use.width);
  }
  if (!preprocessor.empty() && preprocessor != "inpaint") image = preprocessed(image, preprocessor);
  const at::Tensor unit = ((to_tensor(image) + 1) / 2).unsqueeze(0);
  return preprocessor == "inpaint" ? masked_out(unit, use) : unit;
}

at::Tensor control_images(const at::Tensor& images, const std::string& preprocessor) {
  std::vector<at::Tensor> all;
  for (int64_t i = 0; i < images.size(0); ++i) {
    Image image = to_image(images[i]);
    if (image.channels == 1) image = rgb_of(view_of(image));
    all.push_back((to_tensor(preprocessed(image, preprocessor)) + 1) / 2);
  }
  return at::stack(all);
}

at::Tensor control_mask(const std::string& file, int64_t height, int64_t width) {
  expect_file(file);
  Image image = read_image(file, 1, 0);
  if (image.height != height || image.width != width) {
    warn(fmt::format("mask {} is {}x{}, and the images are {}x{}: it is resized (Lanczos), without keeping its proportions", file,
                     image.width, image.height, width, height));
    image = resize_as_pillow_lanczos(image, height, width);
  }
  return ((to_tensor(image) + 1) / 2).unsqueeze(0);
}

}  // namespace brume
