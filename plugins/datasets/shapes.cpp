// Procedural pictures of a coloured form on a plain ground: an endless, labelled and captioned data set that needs no files.
//
// Image `index` follows from (seed, index) alone, so it is the same in any order and on any thread: the draws are splitmix64
// (Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators", 2014) started at a hash of the two.
// Forms are signed distances, negative inside (Quilez, "2D distance functions", iquilezles.org/articles/distfunctions2d);
// anti-aliasing is `coverage = clamp(1/2 - distance, 0, 1)` with the distance from the pixel's centre in pixels.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/errors.h"
#include "config/fields.h"
#include "config/registry.h"
#include "config/suggest.h"
#include "core/dataset.h"
#include "core/seed.h"

namespace brume::plugins {
namespace {

constexpr double pi = std::numbers::pi;

/// The draws of one image.
class Random {
 public:
  Random(uint64_t seed, uint64_t index) : stream_(mix_seed(seed, 0, index)) {}
  double uniform() { return stream_.uniform(); }
  double between(double lo, double hi) { return lo + (hi - lo) * uniform(); }
  size_t below(size_t n) { return static_cast<size_t>(uniform() * static_cast<double>(n)); }

 private:
  SplitMix stream_;
};

struct Point {
  double x = 0, y = 0;  // y points up
};
Point operator-(Point a, Point b) { return {a.x - b.x, a.y - b.y}; }
double dot(Point a, Point b) { return a.x * b.x + a.y * b.y; }

// ---- Forms: signed distances, each about as large as the unit circle -----------------------------------------------------

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

/// A star of N points, its inner corners at `inner` times the radius of its outer ones; at cos(pi/N) it is the regular polygon.
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

constexpr double reach = 1.12;  // no form leaves the circle of this radius

struct Form {
  std::string_view word;
  double (*distance)(Point);
};
constexpr std::array<Form, 8> forms = {{{"circle", circle},
                                        {"square", square},
                                        {"triangle", triangle},
                                        {"star", star},
                                        {"cross", cross},
                                        {"ring", ring},
                                        {"heart", heart},
                                        {"moon", moon}}};

// ---- The other words -----------------------------------------------------------------------------------------------------

struct Rgb {
  double r = 0, g = 0, b = 0;  // 0..1
};
Rgb blend(Rgb a, Rgb b, double t) { return {a.r + t * (b.r - a.r), a.g + t * (b.g - a.g), a.b + t * (b.b - a.b)}; }

struct Colour {
  std::string_view word;
  Rgb rgb;
};
constexpr std::array<Colour, 8> colours = {{{"red", {0.88, 0.16, 0.18}},
                                            {"green", {0.18, 0.68, 0.28}},
                                            {"blue", {0.16, 0.38, 0.92}},
                                            {"yellow", {0.97, 0.82, 0.12}},
                                            {"purple", {0.58, 0.24, 0.78}},
                                            {"orange", {0.96, 0.52, 0.10}},
                                            {"pink", {0.97, 0.50, 0.70}},
                                            {"cyan", {0.12, 0.74, 0.80}}}};

struct Size {
  std::string_view word;
  double lo, hi;  // diameter over the image's smaller side; a gap between two words keeps them apart
};
constexpr std::array<Size, 3> sizes = {{{"small", 0.40, 0.50}, {"medium", 0.56, 0.66}, {"large", 0.72, 0.84}}};

struct Background {
  std::string_view word;
  double lo, hi;  // grey level
  double rise;    // how much lighter the other end is
  double noise;   // of each pixel
};
constexpr std::array<Background, 4> backgrounds = {
    {{"dark", 0.06, 0.18, 0, 0}, {"light", 0.84, 0.95, 0, 0}, {"gradient", 0.04, 0.16, 0.34, 0}, {"noisy", 0.16, 0.26, 0, 0.14}}};

template <class Words>
std::vector<std::string> names(const Words& words) {
  std::vector<std::string> all;
  for (const auto& w : words) all.emplace_back(w.word);
  return all;
}
template <class Words>
const auto& find(const Words& words, std::string_view word) {
  return *std::find_if(words.begin(), words.end(), [&](const auto& w) { return w.word == word; });
}

// ---- A scene and its picture ---------------------------------------------------------------------------------------------

struct Object {
  std::string form, colour, size;  // the words of the caption; no colour in a grey image
  double (*distance)(Point);
  Rgb rgb;
  Point centre;  // in pixels from the top left corner, y down
  double radius, angle;
};

struct Scene {
  std::string background;
  Rgb from, to;     // of the ground, along `direction`
  Point direction;  // of length 1, y down
  double noise;
  std::vector<Object> objects;
};

std::string caption(const Scene& scene) {
  std::string text;
  for (const Object& o : scene.objects)
    text += (text.empty() ? "a " : " and a ") + o.size + (o.colour.empty() ? "" : " " + o.colour) + " " + o.form;
  return text + " on a " + scene.background + " background";
}

double coverage(const Object& o, Point pixel) {
  const Point p = pixel - o.centre;
  const double far = o.radius * reach + 1;
  if (dot(p, p) > far * far) return 0;
  const double c = std::cos(o.angle) / o.radius, s = std::sin(o.angle) / o.radius;
  return std::clamp(0.5 - o.radius * o.distance({c * p.x - s * p.y, -s * p.x - c * p.y}), 0.0, 1.0);
}

/// Values are those of an 8-bit image, as every other data set's are.
float pixel_value(double v) { return static_cast<float>(std::round(255 * std::clamp(v, 0.0, 1.0)) / 127.5 - 1); }

void render(const Scene& scene, const ImageShape& shape, Random& random, std::span<float> pixels) {
  const double width = static_cast<double>(shape.width), height = static_cast<double>(shape.height);
  const double span = width * std::abs(scene.direction.x) + height * std::abs(scene.direction.y);
  const size_t plane = static_cast<size_t>(shape.height * shape.width);
  for (size_t i = 0; i < plane; ++i) {
    const Point pixel = {static_cast<double>(i % static_cast<size_t>(shape.width)) + 0.5,
                         static_cast<double>(i / static_cast<size_t>(shape.width)) + 0.5};
    Rgb c = blend(scene.from, scene.to, 0.5 + dot(pixel - Point{width / 2, height / 2}, scene.direction) / span);
    if (scene.noise > 0) {
      const double n = scene.noise * random.between(-1, 1);
      c = {c.r + n, c.g + n, c.b + n};
    }
    for (const Object& o : scene.objects) c = blend(c, o.rgb, coverage(o, pixel));
    pixels[i] = pixel_value(c.r);
    if (shape.channels == 1) continue;
    pixels[plane + i] = pixel_value(c.g);
    pixels[2 * plane + i] = pixel_value(c.b);
  }
}

class Shapes final : public Dataset {
 public:
  enum class Label { form, colour, form_colour };

  struct Options {
    int64_t seed = 0;
    Label label = Label::form;
    std::vector<std::string> forms = {"circle", "square", "triangle", "star", "cross"};
    std::vector<std::string> colours = {"red", "green", "blue", "yellow", "purple", "orange"};
    std::vector<std::string> sizes = {"small", "large"};
    std::vector<std::string> backgrounds = {"dark", "light", "gradient"};
    double position = 0.7;
    double rotation = 12;

    void declare(Fields& f) {
      f.field("seed", seed, "image i is a function of (seed, i)");
      f.choice("label", label, "what the classes are",
               {{"form", Label::form}, {"colour", Label::colour}, {"form_colour", Label::form_colour}});
      words(f, "forms", forms, names(plugins::forms));
      words(f, "colours", colours, names(plugins::colours));
      words(f, "sizes", sizes, names(plugins::sizes));
      words(f, "backgrounds", backgrounds, names(plugins::backgrounds));
      f.field("position", position, "0 = centred, 1 = anywhere in the image", within(0, 1));
      f.field("rotation", rotation, "the largest turn to either side, in degrees", within(0, 180));
    }

   private:
    static void words(Fields& f, std::string_view key, std::vector<std::string>& chosen, const std::vector<std::string>& known) {
      std::string doc = "drawn uniformly from these; known:";
      for (const std::string& word : known) doc += " " + word;
      f.field(key, chosen, doc);
      f.require(!chosen.empty(), key, "needs one word at least");
      for (size_t i = 0; i < chosen.size(); ++i) {
        const std::string& word = chosen[i];
        if (std::find(known.begin(), known.end(), word) == known.end())
          f.require(false, key, "unknown word '" + word + "'" + hint(word, known));
        const auto here = chosen.begin() + static_cast<std::ptrdiff_t>(i);
        if (std::find(chosen.begin(), here, word) != here) f.require(false, key, "'" + word + "' is given twice");
      }
    }
  };

  static void check(const Options& o, const Context& context) {
    const ImageShape& shape = context.shape;
    if (shape.channels != 1 && shape.channels != 3)
      throw ConfigError("shapes draws images of 1 or 3 channels, the model wants " + shape.text());
    if (shape.channels == 1 && o.label != Label::form)
      throw ConfigError("the model's images (" + shape.text() + ") are grey, so the label cannot be a colour; use label: form");
  }

  Shapes(Options options, const Context& context) : o_(std::move(options)), shape_(context.shape) {
    if (o_.label == Label::form) classes_ = o_.forms;
    if (o_.label == Label::colour) classes_ = o_.colours;
    if (o_.label == Label::form_colour)
      for (const std::string& form : o_.forms)
        for (const std::string& colour : o_.colours) classes_.push_back(colour + " " + form);
  }

  int64_t size() const override { return 0; }
  const std::vector<std::string>& classes() const override { return classes_; }

  Annotation read(int64_t index, uint64_t /*draw*/, std::span<float> pixels) const override {
    Random random(static_cast<uint64_t>(o_.seed), static_cast<uint64_t>(index));
    const size_t form = random.below(o_.forms.size()), colour = random.below(o_.colours.size());
    Scene scene = ground(random);
    scene.objects.push_back(object(random, o_.forms[form], o_.colours[colour], scene));
    render(scene, shape_, random, pixels);
    return {.label = static_cast<int64_t>(label(form, colour)), .caption = caption(scene)};
  }

 private:
  size_t label(size_t form, size_t colour) const {
    if (o_.label == Label::form) return form;
    if (o_.label == Label::colour) return colour;
    return form * o_.colours.size() + colour;
  }

  Scene ground(Random& random) const {
    const Background& b = find(backgrounds, o_.backgrounds[random.below(o_.backgrounds.size())]);
    const double level = random.between(b.lo, b.hi), angle = random.between(0, 2 * pi), tint = 0.04;
    const Rgb from = {level + random.between(-tint, tint), level + random.between(-tint, tint), level + random.between(-tint, tint)};
    const Rgb to = {from.r + b.rise, from.g + b.rise, from.b + b.rise};
    return {.background = std::string(b.word),
            .from = from,
            .to = to,
            .direction = {std::cos(angle), std::sin(angle)},
            .noise = b.noise,
            .objects = {}};
  }

  Object object(Random& random, const std::string& form, const std::string& colour, const Scene& scene) const {
    const Size& size = find(sizes, o_.sizes[random.below(o_.sizes.size())]);
    const double width = static_cast<double>(shape_.width), height = static_cast<double>(shape_.height);
    const double radius = random.between(size.lo, size.hi) * std::min(width, height) / 2;
    const double x = o_.position * std::max(width / 2 - radius * reach, 0.0), y = o_.position * std::max(height / 2 - radius * reach, 0.0);
    const Point centre = {width / 2 + random.between(-x, x), height / 2 + random.between(-y, y)};
    const double angle = random.between(-o_.rotation, o_.rotation) * pi / 180;
    Object o = {.form = form,
                .colour = colour,
                .size = std::string(size.word),
                .distance = find(forms, form).distance,
                .rgb = find(colours, colour).rgb,
                .centre = centre,
                .radius = radius,
                .angle = angle};
    if (shape_.channels == 1) {  // there the words of colours mean nothing: light on dark, or dark on light
      const double grey = scene.from.r < 0.5 ? random.between(0.85, 1) : random.between(0, 0.15);
      o.colour.clear();
      o.rgb = {grey, grey, grey};
    }
    return o;
  }

  Options o_;
  ImageShape shape_;
  std::vector<std::string> classes_;
};

}  // namespace

void register_dataset_shapes(Registry& r) {
  r.add<Dataset, Shapes>("shapes", "coloured forms drawn on the fly: endless, with labels and captions");
}

}  // namespace brume::plugins
