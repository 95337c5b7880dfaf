#include "commands/report_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace brume::tools {
namespace {

constexpr double width = 460, height = 260, left = 58, right = 12, top = 30, bottom = 40;
constexpr size_t most_points = 400;  ///< of a line

struct Scale {
  double lo = std::numeric_limits<double>::infinity(), hi = -lo, begin = 0, end = 0;
  bool log = false;
  void add(double v) { lo = std::min(lo, v), hi = std::max(hi, v); }
  double at(double v) const {
    const double share = log ? std::log(v / lo) / std::log(hi / lo) : (v - lo) / (hi - lo);
    return begin + share * (end - begin);
  }
};

std::vector<double> ticks(const Scale& s) {
  std::vector<double> all;
  if (s.log) {
    for (int p = int(std::floor(std::log10(s.lo))); p <= int(std::ceil(std::log10(s.hi))); ++p)
      for (const double m : {1, 2, 5}) all.push_back(m * std::pow(10.0, p));
  } else {
    const double rough = (s.hi - s.lo) / 5, power = std::pow(10.0, std::floor(std::log10(rough)));
    const double step = (rough / power < 1.5 ? 1 : rough / power < 3.5 ? 2 : rough / power < 7.5 ? 5 : 10) * power;
    for (double v = std::ceil(s.lo / step); v * step <= s.hi * (1 + 1e-12); ++v) all.push_back(v * step);
  }
  std::erase_if(all, [&](double v) { return v < s.lo || v > s.hi; });
  return all;
}

/// Gives a scale some room, and a width if it has none.
void widen(Scale& s) {
  if (s.log) return void((s.lo /= 1.1, s.hi *= 1.1));
  const double room = s.hi > s.lo ? 0.04 * (s.hi - s.lo) : std::max(1e-9, 0.1 * std::abs(s.hi));
  s.lo -= room, s.hi += room;
}

std::string axes(const Scale& x, const Scale& y, const std::string& x_name) {
  std::string svg;
  for (const double v : ticks(y))
    svg += fmt::format(
        "<line class='grid' x1='{0}' x2='{1}' y1='{2:.1f}' y2='{2:.1f}'/><text class='label' x='{3}' y='{4:.1f}' "
        "text-anchor='end'>{5:.4g}</text>",
        left, width - right, y.at(v), left - 6, y.at(v) + 4, v);
  for (const double v : ticks(x))
    svg += fmt::format("<text class='label' x='{:.1f}' y='{}' text-anchor='middle'>{:.6g}</text>", x.at(v), height - bottom + 16, v);
  svg += fmt::format("<line class='axis' x1='{0}' x2='{1}' y1='{2}' y2='{2}'/>", left, width - right, height - bottom);
  return svg + fmt::format("<text class='label' x='{}' y='{}' text-anchor='middle'>{}</text>", (left + width - right) / 2, height - 6,
                           html_text(x_name));
}

}  // namespace

std::string html_text(const std::string& text) {
  std::string safe;
  for (const char c : text) switch (c) {
      case '<': safe += "&lt;"; break;
      case '>': safe += "&gt;"; break;
      case '&': safe += "&amp;"; break;
      case '\'': safe += "&#39;"; break;
      case '"': safe += "&quot;"; break;
      default: safe += c;
    }
  return safe;
}

std::string line_class(size_t number) { return fmt::format("c{} d{}", number % 8, number / 8 % 3); }

std::string report_chart(const std::string& title, const std::string& x_name, const std::vector<ReportLine>& lines, bool markers) {
  Scale x, y;
  for (const ReportLine& line : lines)
    for (const auto& [a, b] : line.points) x.add(a), y.add(b);
  if (!(x.lo <= x.hi)) return "";
  y.log = y.lo > 0 && y.hi > 30 * y.lo;
  widen(x), widen(y);
  x.begin = left, x.end = width - right, y.begin = height - bottom, y.end = top;
  std::string svg = fmt::format("<figure><svg viewBox='0 0 {} {}' role='img'><title>{}</title>", width, height, html_text(title));
  svg += fmt::format("<text class='title' x='{}' y='18'>{}</text>", left, html_text(title)) + axes(x, y, x_name);
  for (const ReportLine& line : lines) {
    std::string points, dots;
    const size_t every = std::max<size_t>(1, line.points.size() / most_points);
    for (size_t i = 0; i < line.points.size(); ++i) {
      if (i % every && i + 1 != line.points.size()) continue;
      const double a = x.at(line.points[i].first), b = y.at(line.points[i].second);
      points += fmt::format("{:.1f},{:.1f} ", a, b);
      if (markers || line.points.size() == 1)
        dots += fmt::format("<circle class='dot {}' cx='{:.1f}' cy='{:.1f}' r='3'/>", line_class(line.number), a, b);
    }
    svg += fmt::format("<g><title>{}</title><polyline class='line {}' points='{}'/>{}</g>", html_text(line.name), line_class(line.number),
                       points, dots);
  }
  return svg + "</svg></figure>\n";
}

}  // namespace brume::tools
