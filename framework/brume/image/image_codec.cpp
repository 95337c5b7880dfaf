#include "brume/image/image_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <stdexcept>

#include "brume/config/counted.h"
#include "brume/config/utf8.h"
#include "brume/files/refuse.h"

namespace brume {
namespace {

/// Returns the pixels of an image as OpenCV sees them, without a copy. OpenCV only reads through it.
cv::Mat view(const Image& image) {
  if (image.height < 1 || image.width < 1 || image.height > INT_MAX || image.width > INT_MAX ||
      (image.channels != 1 && image.channels != 3)) {
    throw std::logic_error(fmt::format("no image: {}x{} with {}", image.height, image.width, counted(image.channels, "channel")));
  }
  return {static_cast<int>(image.height), static_cast<int>(image.width), CV_8UC(static_cast<int>(image.channels)),
          const_cast<uint8_t*>(image.pixels.data())};
}

Image copy_of(const cv::Mat& mat) {
  Image image(mat.rows, mat.cols, mat.channels());
  for (int64_t y = 0; y < image.height; ++y) {
    std::memcpy(image.row(y), mat.ptr(static_cast<int>(y)), static_cast<size_t>(image.width * image.channels));
  }
  return image;
}

/// Converts 16 bits to 8: 65535 becomes 255.
cv::Mat as_8_bits(const cv::Mat& mat, const std::string& path) {
  if (mat.depth() == CV_8U) return mat;
  if (mat.depth() != CV_16U) refuse(path, "is an image of neither 8 nor 16 bits per channel");
  cv::Mat converted;
  mat.convertTo(converted, CV_8U, 1.0 / 257);
  return converted;
}

/// Returns a grey image as BGRA, of which one level is transparent.
cv::Mat with_transparent(uint16_t level, const cv::Mat& grey) {
  cv::Mat bgra, alpha;
  cv::cvtColor(grey, bgra, cv::COLOR_GRAY2BGRA);
  cv::compare(grey, level, alpha, cv::CMP_NE);  // 255 if it differs
  if (grey.depth() == CV_16U) alpha.convertTo(alpha, CV_16U, 257);
  cv::insertChannel(alpha, bgra, 3);
  return bgra;
}

cv::Mat composited(const cv::Mat& bgra, uint8_t background, bool premultiplied) {
  cv::Mat bgr(bgra.rows, bgra.cols, CV_8UC3);
  for (int y = 0; y < bgra.rows; ++y) {
    const uint8_t* from = bgra.ptr(y);
    uint8_t* to = bgr.ptr(y);
    for (int x = 0; x < bgra.cols; ++x, from += 4, to += 3) {
      const int alpha = from[3];
      for (int c = 0; c < 3; ++c) {
        const int own = from[c] * (premultiplied ? 255 : alpha);
        to[c] = static_cast<uint8_t>(std::min((own + background * (255 - alpha) + 127) / 255, 255));
      }
    }
  }
  return bgr;
}

cv::Mat converted(const cv::Mat& mat, const Decoding& how, const std::string& path) {
  const bool key = how.transparent_grey && mat.channels() == 1 && (mat.depth() == CV_8U || mat.depth() == CV_16U);
  const auto bits8 = as_8_bits(key ? with_transparent(*how.transparent_grey, mat) : mat, path);
  auto opaque = bits8.channels() == 4 ? composited(bits8, how.background, how.premultiplied) : bits8;
  if (opaque.channels() != 1 && opaque.channels() != 3) {
    refuse(path, fmt::format("is an image of {}", counted(opaque.channels(), "channel")));
  }
  if (opaque.channels() == 1 && how.channels == 1) return opaque;
  cv::Mat result;
  const int conversion = opaque.channels() == 1 ? cv::COLOR_GRAY2RGB : how.channels == 1 ? cv::COLOR_BGR2GRAY : cv::COLOR_BGR2RGB;
  cv::cvtColor(opaque, result, conversion);
  return result;
}

/// Returns the pixels of a file as OpenCV gives them.
cv::Mat decoded_file(std::string_view bytes, int flags, const std::string& path) {
  if (bytes.size() > INT_MAX) refuse(path, fmt::format("is an image file of {} bytes (at most {})", bytes.size(), INT_MAX));
  try {
    const cv::Mat file(1, static_cast<int>(bytes.size()), CV_8U, const_cast<char*>(bytes.data()));
    cv::Mat decoded = cv::imdecode(file, flags);
    if (decoded.empty()) refuse(path, "is a damaged image: it cannot be decoded");
    return decoded;
  } catch (const cv::Exception& error) {
    refuse(path, fmt::format("is a damaged image: {}", shortened(error.err, 200)));
  }
}

/// Text of this size is legible and leaves room for a dozen characters above a tile.
struct Lettering {
  int font = cv::FONT_HERSHEY_SIMPLEX;
  double scale;
  int height, baseline;

  explicit Lettering(int64_t width) : scale(std::clamp(static_cast<double>(width) / 300, 0.35, 0.5)) {
    height = cv::getTextSize("Ag", font, scale, 1, &baseline).height;
  }
  int width_of(const std::string& text) const {
    int ignored = 0;
    return cv::getTextSize(text, font, scale, 1, &ignored).width;
  }
};

}  // namespace

Image decode_image(std::string_view bytes, const Decoding& how, const std::string& path) {
  // IMREAD_UNCHANGED keeps alpha, and does not turn an image as its Exif data say; both are decided here, not by OpenCV's version.
  const int flags = how.alpha ? cv::IMREAD_UNCHANGED : cv::IMREAD_COLOR | cv::IMREAD_ANYDEPTH | cv::IMREAD_IGNORE_ORIENTATION;
  return copy_of(converted(decoded_file(bytes, flags, path), how, path));
}

std::vector<uint16_t> decode_samples(std::string_view bytes, int64_t height, int64_t width, int bits, const std::string& path) {
  const cv::Mat decoded = decoded_file(bytes, cv::IMREAD_UNCHANGED, path);
  const int depth = bits == 16 ? CV_16U : CV_8U;
  if (decoded.rows != height || decoded.cols != width || decoded.channels() != 1 || decoded.depth() != depth)
    refuse(path, "is an image whose pixels are not stored as its header says");
  std::vector<uint16_t> samples;
  samples.reserve(static_cast<size_t>(height * width));
  for (int y = 0; y < decoded.rows; ++y)
    for (int x = 0; x < decoded.cols; ++x) samples.push_back(bits == 16 ? decoded.at<uint16_t>(y, x) : decoded.at<uint8_t>(y, x));
  return samples;
}

namespace {
std::string encoded(const Image& image, const char* extension, const std::vector<int>& settings) {
  const cv::Mat rgb = view(image);
  cv::Mat bgr;  // of its own: writing into a view would change the image
  image.channels == 3 ? cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR) : rgb.copyTo(bgr);
  std::vector<uint8_t> bytes;
  if (!cv::imencode(extension, bgr, bytes, settings)) throw std::runtime_error(fmt::format("OpenCV cannot encode {}", extension));
  return {bytes.begin(), bytes.end()};
}
}  // namespace

std::string encode_png(const Image& image) {
  constexpr int level = 6;  // OpenCV's own choice favours speed: files a third larger
  return encoded(image, ".png", {cv::IMWRITE_PNG_COMPRESSION, level});
}

std::string encode_jpeg(const Image& image, int quality) {
  return encoded(image, ".jpg", {cv::IMWRITE_JPEG_QUALITY, quality, cv::IMWRITE_JPEG_OPTIMIZE, 1});
}

Image resize(const Image& image, int64_t height, int64_t width) {
  if (height < 1 || width < 1) throw std::logic_error(fmt::format("resize to {}x{}", height, width));
  const auto scaled = [](const cv::Mat& from, int64_t to_height, int64_t to_width, int interpolation) {
    cv::Mat to;
    cv::resize(from, to, cv::Size(static_cast<int>(to_width), static_cast<int>(to_height)), 0, 0, interpolation);
    return to;
  };
  // Each direction has its own rule: averaging areas is no interpolation, and interpolating while shrinking aliases.
  cv::Mat result = view(image);
  const auto shrunk_height = std::min(height, image.height), shrunk_width = std::min(width, image.width);
  if (shrunk_height < image.height || shrunk_width < image.width) result = scaled(result, shrunk_height, shrunk_width, cv::INTER_AREA);
  if (height > shrunk_height || width > shrunk_width) result = scaled(result, height, width, cv::INTER_CUBIC);
  return copy_of(result);
}

Image text_line(const std::string& text, int64_t width, int64_t channels) {
  const Lettering lettering(width);
  constexpr int margin = 2;
  Image line(lettering.height + lettering.baseline + margin, width, channels, 255);
  auto shown = ascii_text(text);
  const auto room = static_cast<int>(width) - 2 * margin;
  if (lettering.width_of(shown) > room) {
    while (!shown.empty() && lettering.width_of(shown + "...") > room) shown.pop_back();
    shown += "...";
  }
  cv::Mat canvas = view(line);
  cv::putText(canvas, shown, {margin, lettering.height + margin / 2}, lettering.font, lettering.scale, cv::Scalar::all(0), 1, cv::LINE_AA);
  return line;
}

std::vector<std::string> broken_text(const std::string& text, int64_t width, size_t most) {
  const Lettering lettering(width);
  const auto room = static_cast<int>(width) - 4;
  std::vector<std::string> lines{""};
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find(' ', start), text.size());
    const std::string word = text.substr(start, end - start), longer = lines.back().empty() ? word : lines.back() + " " + word;
    if (lines.back().empty() || lines.size() == most || lettering.width_of(ascii_text(longer)) <= room)
      lines.back() = longer;
    else
      lines.push_back(word);
    start = end + 1;
  }
  return lines;
}

}  // namespace brume
