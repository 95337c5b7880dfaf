#include "plot/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "brume/config/errors.h"

namespace brume::tools {
namespace {

/// Returns 1, 2 or 5 times a power of ten, at least `least`.
double round_step(double least) {
  const double decade = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * decade >= least * (1 - 1e-9)) return factor * decade;
  return 10 * decade;
}

std::string scientific(double value) {
  const int exponent = int(std::floor(std::log10(std::abs(value)) + 1e-9));
  const double mantissa = value / std::pow(10, exponent);
  if (std::abs(std::abs(mantissa) - 1) < 1e-9) return fmt::format("{}10^{{{}}}", value < 0 ? "-" : "", exponent);
  return fmt::format("{:.4g}x10^{{{}}}", mantissa, exponent);
}

std::vector<Tick> even_ticks(double lo, double hi, double pixels) {
  const double step = round_step((hi - lo) / std::max(2.0, pixels / 75));
  const int decimals = std::max(0, int(-std::floor(std::log10(step) + 1e-9)));
  const bool is_plain = decimals <= 4 && std::max(std::abs(lo), std::abs(hi)) < 1e6;
  std::vector<Tick> ticks;
  const int64_t last = std::llround(std::floor(hi / step + 1e-9));
  for (int64_t i = std::llround(std::ceil(lo / step - 1e-9)); i <= last; ++i) {
    const double value = double(i) * step;
    ticks.push_back({value, is_plain ? fmt::format("{:.{}f}", value, decimals) : value == 0 ? "0" : scientific(value)});
  }
  return ticks;
}

std::vector<Tick> decade_ticks(double lo, double hi, double pixels) {
  const int first = int(std::floor(std::log10(lo))), last = int(std::ceil(std::log10(hi)));
  const double decades = std::log10(hi / lo), room = pixels / decades;  // pixels a decade
  const int stride = std::max(1, int(std::ceil(42 / room)));
  const bool is_plain = lo >= 9e-4 && hi <= 2e4;
  const auto label = [&](double value) { return is_plain ? fmt::format("{:.10g}", value) : scientific(value); };
  std::vector<Tick> ticks;
  for (int exponent = first; exponent <= last; ++exponent)
    for (int factor = 1; factor < 10; ++factor) {
      const double value = factor * std::pow(10, exponent);
      if (value < lo * (1 - 1e-9) || value > hi * (1 + 1e-9)) continue;
      const bool is_named = factor == 1 ? exponent % stride == 0 : decades < 2.3 && room > 110 && (factor == 2 || factor == 5);
      if (is_named || factor == 1 || room > 80) ticks.push_back({value, is_named ? label(value) : ""});
    }
  return ticks;
}

/// The place of an axis on the canvas.
struct Scale {
  double from, to;  ///< pixels at lo and hi
  double lo, hi;
  bool log;
  double operator()(double v) const { return from + (to - from) * (log ? std::log(v / lo) / std::log(hi / lo) : (v - lo) / (hi - lo)); }
};

double part(const Point& p, bool is_x) { return is_x ? p.x : p.y; }

/// Returns the axis with its ends, those of the data with some room if it has none.
Axis fitted(Axis axis, const std::vector<Series>& series, bool is_x) {
  if (axis.log)
    for (const Series& s : series)
      for (const Point& p : s.points)
        if (!(part(p, is_x) > 0))
          throw ConfigError(fmt::format("{} = {:.6g} has no place on a logarithmic axis, which begins above 0", axis.name, part(p, is_x)));
  if (axis.lo != axis.hi) return axis;
  double lo = INFINITY, hi = -INFINITY;
  for (const Series& s : series)
    for (const Point& p : s.points) lo = std::min(lo, part(p, is_x)), hi = std::max(hi, part(p, is_x));
  if (lo > hi) lo = 1, hi = 2;
  if (axis.log) {
    const double room = lo == hi ? 2 : std::pow(hi / lo, 0.04);
    axis.lo = lo / room, axis.hi = hi * room;
  } else {
    const double room = lo == hi ? (lo == 0 ? 1 : std::abs(lo) / 2) : (hi - lo) * 0.04;
    axis.lo = lo - room, axis.hi = hi + room;
  }
  return axis;
}

std::vector<Tick> ticks_of(const Axis& axis, double pixels) {
  std::vector<Tick> ticks = axis.ticks;
  if (ticks.empty()) ticks = round_ticks(std::min(axis.lo, axis.hi), std::max(axis.lo, axis.hi), axis.log, pixels);
  ticks.insert(ticks.end(), axis.more.begin(), axis.more.end());
  return ticks;
}

double widest(const std::vector<Tick>& ticks) {
  double width = 0;
  for (const Tick& t : ticks) width = std::max(width, Canvas::text_width(t.label, font::tick));
  return width;
}

constexpr double title_height = 28, name_height = 24, tick_height = 20;

void draw_x_ticks(Canvas& canvas, const Box& plot, const std::vector<Tick>& ticks, const Scale& x) {
  double free_from = -INFINITY;  // labels that would touch are left out
  for (const Tick& t : ticks) {
    const double at = x(t.value), half = Canvas::text_width(t.label, font::tick) / 2;
    canvas.line({{at, plot.bottom}, {at, plot.bottom + (t.label.empty() ? 2.5 : 4.5)}}, {ink::axis, 1, {}});
    if (t.label.empty() || at - half < free_from) continue;
    canvas.text(t.label, {at, plot.bottom + 8 + font::tick}, font::tick, ink::text, Align::center);
    free_from = at + half + 5;
  }
}

void draw_y_ticks(Canvas& canvas, const Box& plot, const std::vector<Tick>& ticks, const Scale& y) {
  for (const Tick& t : ticks) {
    const double at = y(t.value);
    canvas.line({{plot.left - (t.label.empty() ? 2.5 : 4.5), at}, {plot.left, at}}, {ink::axis, 1, {}});
    canvas.text(t.label, {plot.left - 8, at + font::tick / 2}, font::tick, ink::text, Align::right);
  }
}

/// Dots alone may be crowded.
double marker_radius(const Series& s) { return s.style.marker == Marker::ring ? 3.4 : s.line ? 2.9 : 2.5; }

void draw_series(Canvas& canvas, const Series& s, const Scale& x, const Scale& y) {
  std::vector<Point> points;
  for (const Point& p : s.points) points.push_back({x(p.x), y(p.y)});
  if (s.line) canvas.line(points, {s.style.color, 1.6, s.style.dashes});
  if (!s.markers) return;
  for (const Point& p : points) {
    if (s.line) canvas.mark(Marker::disc, p, 3.9, {255, 255, 255});  // stands off from lines it lies on
    canvas.mark(s.style.marker, p, marker_radius(s), s.style.color);
  }
}

}  // namespace

Style style(size_t n) {
  // Okabe & Ito 2008, without its yellow, which white paper swallows.
  static constexpr std::array<Color, 7> colors{ink::blue,
                                               ink::vermillion,
                                               color_of_bytes(0, 158, 115),
                                               color_of_bytes(204, 121, 167),
                                               color_of_bytes(86, 180, 233),
                                               color_of_bytes(230, 159, 0),
                                               {0, 0, 0}};
  static const std::array<std::vector<double>, 4> dashes{{{}, {7, 4}, {2, 3}, {9, 3, 2, 3}}};
  static constexpr std::array<Marker, 4> markers{Marker::disc, Marker::square, Marker::triangle, Marker::diamond};
  const size_t round = n / colors.size() % dashes.size();
  return {colors[n % colors.size()], dashes[round], markers[round]};
}

std::vector<Tick> round_ticks(double lo, double hi, bool log, double pixels) {
  if (log && std::log10(hi / lo) >= 0.7) return decade_ticks(lo, hi, pixels);
  return even_ticks(lo, hi, pixels);
}

void draw(Canvas& canvas, const Box& box, const Panel& panel) {
  const Axis across = fitted(panel.x, panel.series, true), up = fitted(panel.y, panel.series, false);
  Box plot = box;
  plot.top += panel.title.empty() ? 8 : title_height;
  plot.bottom -= tick_height + (across.name.empty() ? 0 : name_height);
  const std::vector<Tick> up_ticks = ticks_of(up, plot.height() * 1.7);  // a label is wider than high
  plot.left += std::max(widest(up_ticks), panel.least_left) + 14 + (up.name.empty() ? 0 : name_height);
  plot.right -= 12;
  const std::vector<Tick> across_ticks = ticks_of(across, plot.width());
  const Scale x{plot.left, plot.right, across.lo, across.hi, across.log}, y{plot.bottom, plot.top, up.lo, up.hi, up.log};

  for (const Tick& t : across_ticks)
    if (!t.label.empty()) canvas.line({{x(t.value), plot.top}, {x(t.value), plot.bottom}}, {ink::grid, 1, {}});
  for (const Tick& t : up_ticks)
    if (!t.label.empty()) canvas.line({{plot.left, y(t.value)}, {plot.right, y(t.value)}}, {ink::grid, 1, {}});
  canvas.line({{plot.left, plot.top}, {plot.left, plot.bottom}, {plot.right, plot.bottom}}, {ink::axis, 1, {}});
  draw_x_ticks(canvas, plot, across_ticks, x);
  draw_y_ticks(canvas, plot, up_ticks, y);
  canvas.clip({plot.left - 5, plot.top - 5, plot.right + 5, plot.bottom + 5});  // a marker on the edge is whole
  for (const Series& s : panel.series) draw_series(canvas, s, x, y);
  canvas.unclip();
  canvas.text(panel.title, {(plot.left + plot.right) / 2, plot.top - 11}, font::title, ink::text, Align::center);
  canvas.text(across.name, {(plot.left + plot.right) / 2, box.bottom - 4}, font::label, ink::text, Align::center);
  if (!up.name.empty()) canvas.vertical_text(up.name, {box.left + 10, (plot.top + plot.bottom) / 2}, font::label, ink::text);
}

std::string shown(const std::string& name) {
  constexpr size_t most = 40;
  return name.size() <= most ? name : name.substr(0, most - 3) + "...";
}

void draw_legend(Canvas& canvas, Point at, const std::vector<Series>& series) {
  for (const Series& s : series) {
    const double middle = at.y + legend_row / 2;
    if (s.line) canvas.line({{at.x, middle}, {at.x + 28, middle}}, {s.style.color, 1.8, s.style.dashes});
    if (s.markers) canvas.mark(s.style.marker, {at.x + 14, middle}, marker_radius(s), s.style.color);
    canvas.text(shown(s.name), {at.x + 36, middle + font::tick / 2}, font::tick, ink::text);
    at.y += legend_row;
  }
}

double legend_width(const std::vector<Series>& series) {
  double width = 0;
  for (const Series& s : series) width = std::max(width, Canvas::text_width(shown(s.name), font::tick));
  return width + 36;
}

}  // namespace brume::tools
