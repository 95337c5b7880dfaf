// Forms are signed distances, negative inside (Quilez, "2D distance functions", iquilezles.org/articles/distfunctions2d);
// anti-aliasing is `coverage = clamp(1/2 - distance, 0, 1)` with the distance from the pixel's centre in pixels.
#include "brume/data/shapes/world.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <sstream>

#include "brume/config/errors.h"
#include "brume/config/suggest.h"

namespace brume::shapes {
namespace {

constexpr double pi = std::numbers::pi;

double disc(Point p, Point centre, double radius) { return std::hypot(p.x - centre.x, p.y - centre.y) - radius; }

double polygon(std::span<const Point> corners, Point p) {
  double squared = dot(p - corners[0], p - corners[0]);
  bool inside = false;
  Point from = corners.back();
  for (const Point to : corners) {
    const Point edge = from - to, w = p - to;
    const double along = std::clamp(dot(w, edge) / dot(edge, edge), 0.0, 1.0);
    const Point off = {w.x - along * edge.x, w.y - along * edge.y};
    squared = std::min(squared, dot(off, off));
    // The horizontal ray from p crosses this edge.
    if ((p.y >= to.y) == (p.y < from.y) && (edge.x * w.y > edge.y * w.x) == (p.y >= to.y)) inside = !inside;
    from = to;
  }
  return inside ? -std::sqrt(squared) : std::sqrt(squared);
}

/// Returns a star of N points, its inner corners at `inner` times the radius of its outer ones; at cos(pi/N) it is the regular polygon.
template <size_t N>
std::array<Point, 2 * N> star_corners(double radius, double inner, double first_angle) {
  std::array<Point, 2 * N> corners;
  for (size_t i = 0; i < corners.size(); ++i) {
    const double r = i % 2 == 0 ? radius : radius * inner, angle = first_angle + pi * static_cast<double>(i) / N;
    corners[i] = {r * std::cos(angle), r * std::sin(angle)};
  }
  return corners;
}

double circle(Point p) { return disc(p, {}, 0.92); }
double ring(Point p) { return std::abs(disc(p, {}, 0.71)) - 0.24; }
double moon(Point p) { return std::max(disc(p, {0.05, 0}, 0.95), -disc(p, {0.5, 0.14}, 0.78)); }

double square(Point p) {
  static constexpr std::array<Point, 4> corners = {{{0.78, 0.78}, {-0.78, 0.78}, {-0.78, -0.78}, {0.78, -0.78}}};
  return polygon(corners, p);
}
double triangle(Point p) {
  static const auto corners = star_corners<3>(1.05, 0.5, pi / 2);
  return polygon(corners, {p.x, p.y + 0.1});  // lower than its centre of mass: it looks centred so
}
double star(Point p) {
  static const auto corners = star_corners<5>(1.08, 0.42, pi / 2);
  return polygon(corners, p);
}
double cross(Point p) {
  constexpr double a = 0.94, b = 0.32;
  static constexpr std::array<Point, 12> corners = {
      {{b, a}, {-b, a}, {-b, b}, {-a, b}, {-a, -b}, {-b, -b}, {-b, -a}, {b, -a}, {b, -b}, {a, -b}, {a, b}, {b, b}}};
  return polygon(corners, p);
}
double heart(Point p) {
  constexpr double scale = 1.62;
  const double x = std::abs(p.x) / scale, y = p.y / scale + 0.54;
  if (x + y > 1) return scale * disc({x, y}, {0.25, 0.75}, std::sqrt(2) / 4);
  const double diagonal = std::max(x + y, 0.0) / 2;
  const double distance = std::min(std::hypot(x, y - 1), std::hypot(x - diagonal, y - diagonal));
  return x > y ? scale * distance : -scale * distance;
}

/// The words of a caption, taken off its front one by one.
class Reader {
 public:
  explicit Reader(const std::string& text) : text_(text) {
    std::istringstream in(text);
    for (std::string word; in >> word;) words_.push_back(word);
  }
  bool done() const { return at_ == words_.size(); }
  bool take(std::string_view phrase) {
    size_t at = at_;
    std::istringstream in{std::string(phrase)};
    for (std::string word; in >> word; ++at)
      if (at == words_.size() || words_[at] != word) return false;
    at_ = at;
    return true;
  }
  template <class Words>
  std::string one_of(const Words& words) {
    for (const auto& w : words)
      if (take(w.word)) return std::string(w.word);
    return {};
  }
  /// Throws ConfigError: `what` was wanted, one of `known`.
  [[noreturn]] void refuse(const std::string& what, const std::vector<std::string>& known) const {
    const std::string where = fmt::format("caption '{}': ", text_);
    if (done()) throw ConfigError(fmt::format("{}ends where {} should stand ({})", where, what, fmt::join(known, ", ")));
    throw ConfigError(fmt::format("{}'{}' is not {}{}", where, words_[at_], what, hint(words_[at_], known)));
  }

 private:
  std::string text_;
  std::vector<std::string> words_;
  size_t at_ = 0;
};

Described read_object(Reader& in) {
  if (!in.take("a") && !in.take("A")) in.refuse("the article", {"a"});
  Described o;
  if ((o.size = in.one_of(sizes)).empty()) in.refuse("a size", names(sizes));
  o.colour = in.one_of(colours);
  if ((o.form = in.one_of(forms)).empty()) {
    std::vector<std::string> known = names(forms);
    if (o.colour.empty()) {
      const std::vector<std::string> more = names(colours);
      known.insert(known.end(), more.begin(), more.end());
    }
    in.refuse(o.colour.empty() ? "a colour or a form" : "a form", known);
  }
  return o;
}

}  // namespace

const std::array<Form, 8> forms = {{{"circle", circle},
                                    {"square", square},
                                    {"triangle", triangle},
                                    {"star", star},
                                    {"cross", cross},
                                    {"ring", ring},
                                    {"heart", heart},
                                    {"moon", moon}}};

std::string text_of(const Caption& caption) {
  std::string text;
  for (const Described& o : caption.objects) {
    if (!text.empty()) text += " " + (caption.relation.empty() ? "and" : caption.relation) + " ";
    text += "a " + o.size + (o.colour.empty() ? "" : " " + o.colour) + " " + o.form;
  }
  return text + (caption.background.empty() ? "" : " on a " + caption.background + " background");
}

Caption read_caption(const std::string& text) {
  Reader in(text);
  Caption c;
  c.objects.push_back(read_object(in));
  c.relation = in.one_of(relations);
  if (!c.relation.empty() || in.take("and")) c.objects.push_back(read_object(in));
  if (in.take("on a")) {
    if ((c.background = in.one_of(backgrounds)).empty()) in.refuse("a background", names(backgrounds));
    if (!in.take("background")) in.refuse("the last word", {"background"});
  }
  if (!in.done()) {
    std::vector<std::string> known = names(relations);
    known.push_back("on a");
    in.refuse("a relation or a background", known);
  }
  return c;
}

double coverage(const Placed& o, Point pixel) {
  const Point p = pixel - o.centre;
  const double far = o.radius * reach + 1;
  if (dot(p, p) > far * far) return 0;
  const double c = std::cos(o.angle) / o.radius, s = std::sin(o.angle) / o.radius;
  return std::clamp(0.5 - o.radius * o.form->distance({c * p.x - s * p.y, -s * p.x - c * p.y}), 0.0, 1.0);
}

}  // namespace brume::shapes
