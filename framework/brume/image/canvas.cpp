#include "brume/image/canvas.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <opencv2/imgproc.hpp>
#include <stdexcept>

#include "brume/config/utf8.h"
#include "brume/files/atomic_file.h"
#include "brume/image/png.h"

namespace brume {
namespace {

constexpr int oversampling = 4;
constexpr int fraction_bits = 4;  // OpenCV's fixed-point coordinates
constexpr int font = cv::FONT_HERSHEY_SIMPLEX;
constexpr double capital_height = 21;  // of the font at scale 1
constexpr double exponent_size = 0.75, exponent_rise = 0.62;

cv::Scalar scalar(Color c) { return {std::round(255 * c.red), std::round(255 * c.green), std::round(255 * c.blue)}; }

/// A piece of text on one level.
struct Piece {
  std::string text;
  bool raised;
};

std::vector<Piece> pieces_of(const std::string& text) {
  std::vector<Piece> pieces;
  std::string rest = ascii_text(text);
  for (size_t open; (open = rest.find("^{")) != std::string::npos;) {
    const size_t close = rest.find('}', open);
    if (close == std::string::npos) break;
    pieces.push_back({rest.substr(0, open), false});
    pieces.push_back({rest.substr(open + 2, close - open - 2), true});
    rest.erase(0, close + 1);
  }
  pieces.push_back({rest, false});
  return pieces;
}

double scale_of(double size, bool raised) { return size * oversampling / capital_height * (raised ? exponent_size : 1); }

int thickness_of(double size) { return std::max(1, int(std::lround(size * oversampling * 0.105))); }

/// Returns the width of a piece in the enlarged image.
double width_of(const Piece& piece, double size) {
  if (piece.text.empty()) return 0;
  int ignored = 0;
  return cv::getTextSize(piece.text, font, scale_of(size, piece.raised), thickness_of(size), &ignored).width;
}

void put(cv::Mat& mat, const std::string& text, double x, double y, double size, Color color) {
  for (const Piece& piece : pieces_of(text)) {
    const double rise = piece.raised ? exponent_rise * size * oversampling : 0;
    const cv::Point at(int(std::lround(x)), int(std::lround(y - rise)));
    cv::putText(mat, piece.text, at, font, scale_of(size, piece.raised), scalar(color), thickness_of(size), cv::LINE_AA);
    x += width_of(piece, size);
  }
}

/// Returns the stretches of a line that are drawn, dash by dash.
std::vector<std::vector<Point>> dashes_of(const std::vector<Point>& points, const std::vector<double>& dashes) {
  if (dashes.empty()) return {points};
  std::vector<std::vector<Point>> drawn;
  size_t phase = 0;
  double left = dashes[0];
  std::vector<Point> current{points.front()};
  for (size_t i = 1; i < points.size(); ++i) {
    Point from = points[i - 1];
    const Point to = points[i];
    for (double length = std::hypot(to.x - from.x, to.y - from.y); length > 0;) {
      const double advance = std::min(length, left);
      const Point next{from.x + (to.x - from.x) * advance / length, from.y + (to.y - from.y) * advance / length};
      current.push_back(next);
      length -= advance;
      left -= advance;
      from = next;
      if (left > 0) continue;
      if (phase % 2 == 0) drawn.push_back(current);
      phase = (phase + 1) % dashes.size();
      left = dashes[phase];
      current = {next};
    }
  }
  if (phase % 2 == 0 && current.size() > 1) drawn.push_back(current);
  return drawn;
}

std::vector<Point> corners_of(Marker marker, Point c, double r) {
  if (marker == Marker::square) return {{c.x - r, c.y - r}, {c.x + r, c.y - r}, {c.x + r, c.y + r}, {c.x - r, c.y + r}};
  if (marker == Marker::diamond) return {{c.x, c.y - r}, {c.x + r, c.y}, {c.x, c.y + r}, {c.x - r, c.y}};
  return {{c.x, c.y - r}, {c.x + 0.87 * r, c.y + r / 2}, {c.x - 0.87 * r, c.y + r / 2}};
}

}  // namespace

struct Canvas::Surface {
  cv::Mat whole, view;
  cv::Point origin;  ///< of the view

  cv::Rect rectangle(const Box& box) const {
    const auto pixel = [](double v) { return int(std::lround(v * oversampling)); };
    const cv::Rect wanted(cv::Point(pixel(box.left), pixel(box.top)), cv::Point(pixel(box.right), pixel(box.bottom)));
    return wanted & cv::Rect(0, 0, whole.cols, whole.rows);
  }
  cv::Point fixed(Point p) const {
    // Far outside is far enough: OpenCV's fixed-point coordinates end at 2^31.
    const auto part = [](double v, int offset) {
      return int(std::lround((std::clamp(v * oversampling, -1e5, 1e5) - offset) * (1 << fraction_bits)));
    };
    return {part(p.x, origin.x), part(p.y, origin.y)};
  }
  std::vector<cv::Point> fixed(const std::vector<Point>& points) const {
    std::vector<cv::Point> all;
    all.reserve(points.size());
    for (const Point& p : points) all.push_back(fixed(p));
    return all;
  }
};

Canvas::Canvas(int64_t height, int64_t width) : surface_(std::make_unique<Surface>()), height_(height), width_(width) {
  if (height < 1 || width < 1 || height > 8000 || width > 8000) throw std::logic_error(fmt::format("a canvas of {}x{}", height, width));
  surface_->whole = cv::Mat(int(height) * oversampling, int(width) * oversampling, CV_8UC3, cv::Scalar::all(255));
  unclip();
}

Canvas::~Canvas() = default;

void Canvas::clip(const Box& box) {
  const cv::Rect inside = surface_->rectangle(box);
  surface_->view = surface_->whole(inside);
  surface_->origin = inside.tl();
}

void Canvas::unclip() {
  surface_->view = surface_->whole;
  surface_->origin = {0, 0};
}

void Canvas::line(const std::vector<Point>& points, const Stroke& stroke) {
  if (points.size() < 2) return;
  const int width = std::max(1, int(std::lround(stroke.width * oversampling)));
  for (const std::vector<Point>& part : dashes_of(points, stroke.dashes))
    cv::polylines(surface_->view, surface_->fixed(part), false, scalar(stroke.color), width, cv::LINE_AA, fraction_bits);
}

void Canvas::fill(const Box& box, Color color) {
  const cv::Rect r = surface_->rectangle(box) - surface_->origin;
  const cv::Rect inside = r & cv::Rect(0, 0, surface_->view.cols, surface_->view.rows);
  if (inside.area() > 0) surface_->view(inside).setTo(scalar(color));
}

void Canvas::mark(Marker marker, Point center, double radius, Color color) {
  cv::Mat& view = surface_->view;
  const int r = int(std::lround(radius * oversampling * (1 << fraction_bits)));
  if (marker == Marker::disc) {
    cv::circle(view, surface_->fixed(center), r, scalar(color), cv::FILLED, cv::LINE_AA, fraction_bits);
  } else if (marker == Marker::ring) {
    cv::circle(view, surface_->fixed(center), r, cv::Scalar::all(255), cv::FILLED, cv::LINE_AA, fraction_bits);
    cv::circle(view, surface_->fixed(center), r, scalar(color), int(std::lround(1.4 * oversampling)), cv::LINE_AA, fraction_bits);
  } else {
    const std::vector<Point> corners = corners_of(marker, center, marker == Marker::square ? 0.88 * radius : 1.25 * radius);
    cv::fillConvexPoly(view, surface_->fixed(corners), scalar(color), cv::LINE_AA, fraction_bits);
  }
}

void Canvas::picture(const Image& image, const Box& box) {
  const cv::Rect place = surface_->rectangle(box);
  cv::Mat from(int(image.height), int(image.width), CV_8UC3);
  if (image.channels != 3 || place.area() == 0) throw std::logic_error("a canvas takes pictures of three channels, inside it");
  std::memcpy(from.data, image.pixels.data(), image.pixels.size());
  cv::Mat to = surface_->whole(place);
  cv::resize(from, to, to.size(), 0, 0, cv::INTER_LINEAR);
}

double Canvas::text_width(const std::string& text, double size) {
  double width = 0;
  for (const Piece& piece : pieces_of(text)) width += width_of(piece, size);
  return width / oversampling;
}

void Canvas::text(const std::string& text, Point at, double size, Color color, Align align) {
  const double before = align == Align::left ? 0 : text_width(text, size) * (align == Align::center ? 0.5 : 1);
  const double x = (at.x - before) * oversampling - surface_->origin.x, y = at.y * oversampling - surface_->origin.y;
  put(surface_->view, text, x, y, size, color);
}

void Canvas::vertical_text(const std::string& text, Point at, double size, Color color) {
  const int margin = int(size * oversampling);
  const int length = int(text_width(text, size) * oversampling) + 2 * margin, across = 3 * margin;
  cv::Mat flat(across, length, CV_8UC3, cv::Scalar::all(255)), upright;
  put(flat, text, margin, 2 * margin, size, color);
  cv::rotate(flat, upright, cv::ROTATE_90_COUNTERCLOCKWISE);
  const cv::Point corner(int(std::lround(at.x * oversampling)) - across / 2, int(std::lround(at.y * oversampling)) - length / 2);
  const cv::Rect wanted(corner, upright.size()), inside = wanted & cv::Rect(0, 0, surface_->whole.cols, surface_->whole.rows);
  cv::Mat under = surface_->whole(inside);
  cv::min(under, upright(inside - corner), under);  // white paper stays what it covers
}

Image Canvas::image() const {
  cv::Mat small;
  cv::resize(surface_->whole, small, cv::Size(int(width_), int(height_)), 0, 0, cv::INTER_AREA);
  Image image(height_, width_, 3);
  // 24 levels per channel: the eye sees no difference at the edges of lines, and the file is a third smaller.
  constexpr int levels = 23;
  std::transform(small.data, small.data + image.pixels.size(), image.pixels.begin(),
                 [](uint8_t value) { return static_cast<uint8_t>((value * levels + 127) / 255 * 255 / levels); });
  return image;
}

void Canvas::write(const std::string& path) const {
  const Image drawn = image();
  write_file(path, plain_png(height_, width_, {reinterpret_cast<const char*>(drawn.pixels.data()), drawn.pixels.size()}));
}

}  // namespace brume
