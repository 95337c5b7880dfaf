#pragma once
// Charts in the manner of a paper: axes with round ticks, a light grid, thin lines in colours that the colour-blind tell apart.
#include <string>
#include <vector>

#include "brume/image/canvas.h"

namespace brume::tools {

struct Tick {
  double value;
  std::string label;  ///< empty: a minor one
};

struct Axis {
  std::string name;
  bool log = false;
  double lo = 0, hi = 0;         ///< both 0: as the data are; lo > hi turns the axis round
  std::vector<Tick> ticks = {};  ///< empty: round ones
  std::vector<Tick> more = {};   ///< in addition to those
};

/// How a series looks. The n-th of a chart differs from all before it, in colour first, then in dashes and markers.
struct Style {
  Color color;
  std::vector<double> dashes;
  Marker marker;
};
Style style(size_t n);

struct Series {
  std::string name;
  std::vector<Point> points;
  Style style;
  bool line = true, markers = false;
};

struct Panel {
  std::string title;
  Axis x, y;
  std::vector<Series> series;
  double least_left = 0;  ///< room for the labels at the left, that panels in a column begin at one line
};

namespace ink {
inline constexpr Color text = color_of_bytes(51, 51, 51), axis = color_of_bytes(110, 110, 110), grid = color_of_bytes(232, 232, 232),
                       blue = color_of_bytes(0, 114, 178), vermillion = color_of_bytes(213, 94, 0);
}
namespace font {
inline constexpr double title = 10, label = 9, tick = 8;  // heights of a capital
}

/// Returns round ticks for an axis of that many pixels between lo < hi.
std::vector<Tick> round_ticks(double lo, double hi, bool log, double pixels);

/// Draws the panel with its axes, names and title, in the box. Throws ConfigError if a log axis has a value that is not above 0.
void draw(Canvas& canvas, const Box& box, const Panel& panel);

/// Returns a name, cut short if it is too long.
std::string shown(const std::string& name);

/// Draws a column of lines and names, legend_width() wide.
void draw_legend(Canvas& canvas, Point top_left, const std::vector<Series>& series);
double legend_width(const std::vector<Series>& series);
inline constexpr double legend_row = 21;

}  // namespace brume::tools
