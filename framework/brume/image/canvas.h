#pragma once
// Drawing for charts: anti-aliased lines, markers and text on white. Positions and sizes are pixels of the finished image, y downwards;
// everything is drawn larger and averaged down, so that thin lines and small text come out smooth.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "brume/core/color.h"
#include "brume/image/image.h"

namespace brume {

struct Point {
  double x = 0, y = 0;
};

struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;
  double width() const { return right - left; }
  double height() const { return bottom - top; }
};

struct Stroke {
  Color color;
  double width = 1;
  std::vector<double> dashes;  ///< lengths of line and gap in turn; none: a solid line
};

enum class Marker { disc, square, triangle, diamond, ring };
enum class Align { left, center, right };

class Canvas final {
 public:
  Canvas(int64_t height, int64_t width);
  ~Canvas();
  Canvas(const Canvas&) = delete;
  Canvas& operator=(const Canvas&) = delete;

  /// Keeps what is drawn from now on inside the box.
  void clip(const Box& box);
  void unclip();

  void line(const std::vector<Point>& points, const Stroke& stroke);
  void fill(const Box& box, Color color);
  void mark(Marker marker, Point center, double radius, Color color);
  /// Draws the image, scaled to the box.
  void picture(const Image& image, const Box& box);

  /// Draws text. `size` is the height of a capital. The font has ASCII alone (ascii_text()); "10^{-3}" has a raised exponent. `at`
  /// is on the base line, at the left, the middle or the right of the text.
  void text(const std::string& text, Point at, double size, Color color, Align align = Align::left);
  /// Writes from bottom to top, `at` the middle of the text.
  void vertical_text(const std::string& text, Point at, double size, Color color);
  static double text_width(const std::string& text, double size);

  int64_t height() const { return height_; }
  int64_t width() const { return width_; }
  Image image() const;
  /// Writes a PNG, atomically.
  void write(const std::string& path) const;

 private:
  struct Surface;
  std::unique_ptr<Surface> surface_;
  int64_t height_, width_;
};

}  // namespace brume
