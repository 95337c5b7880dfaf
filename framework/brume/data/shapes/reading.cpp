// The ground is a plane fitted to each channel, robustly (Cauchy weights 1/(1 + (d/s)^2)^2, Holland & Welsch 1977, from the border
// inwards). What stands out is cut into connected objects. The colour of an object is that of its most certain pixels, and its word the
// nearest in CIE L*a*b*. With that colour every pixel tells its coverage, alpha = <pixel - ground, colour - ground> / |colour - ground|^2,
// and the form is the one whose rendering covers the same: greatest soft overlap 2 sum(a t) / sum(a^2 + t^2) (Dice 1945) over place, radius
// and turn. The fitted radius gives the size, in the classes of one object or of two; the centres give the relation.
#include "brume/data/shapes/reading.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <opencv2/imgproc.hpp>
#include <optional>

namespace brume::shapes {
namespace {

constexpr int largest_side = 32;      // larger pictures are averaged down: nothing is gained by more pixels
constexpr double least_area = 0.008;  // share of the picture under which a spot is no object; the smallest form has 0.018

// ---- Ground and objects --------------------------------------------------------------------------------------------------

/// Returns the picture in [0, 1], RGB.
cv::Mat3f picture(std::span<const float> pixels, const ImageShape& shape) {
  const int height = static_cast<int>(shape.height), width = static_cast<int>(shape.width);
  cv::Mat3f image(height, width);
  const size_t plane = static_cast<size_t>(height) * static_cast<size_t>(width);
  for (size_t i = 0; i < plane; ++i)
    for (size_t c = 0; c < 3; ++c) {
      const float v = (pixels[shape.channels == 3 ? c * plane + i : i] + 1) / 2;
      image(static_cast<int>(i) / width, static_cast<int>(i) % width)[static_cast<int>(c)] = v >= 0 ? std::min(v, 1.0f) : 0.0f;
    }
  const double scale = double(largest_side) / std::min(height, width);
  if (scale < 1) cv::resize(image, image, {}, scale, scale, cv::INTER_AREA);
  return image;
}

struct Ground {
  cv::Mat3f colour;
  cv::Mat1f distance;  ///< of the picture from it
  double noise = 0;    ///< median of that distance
  double level = 0, rise = 0;
};

/// Solves the weighted least squares of a plane in each channel; rows of the result are 1, x and y.
cv::Mat plane_of(const cv::Mat3f& image, const cv::Mat1f& weight) {
  cv::Mat1d a = cv::Mat1d::zeros(3, 3), b = cv::Mat1d::zeros(3, 3), plane;
  for (int y = 0; y < image.rows; ++y)
    for (int x = 0; x < image.cols; ++x) {
      const double w = weight(y, x), basis[3] = {1, double(x) / image.cols - 0.5, double(y) / image.rows - 0.5};
      for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) {
          a(i, j) += w * basis[i] * basis[j];
          b(i, j) += w * basis[i] * image(y, x)[j];
        }
    }
  cv::solve(a, b, plane, cv::DECOMP_SVD);
  return plane;
}

/// Returns the median of the pixels within two of the border.
double median_at_border(const cv::Mat1f& distance) {
  std::vector<float> values;
  for (int y = 0; y < distance.rows; ++y)
    for (int x = 0; x < distance.cols; ++x)
      if (std::min({x, y, distance.cols - 1 - x, distance.rows - 1 - y}) < 2) values.push_back(distance(y, x));
  std::nth_element(values.begin(), values.begin() + std::ptrdiff_t(values.size() / 2), values.end());
  return values[values.size() / 2];
}

Ground ground_of(const cv::Mat3f& image) {
  cv::Mat1f weight = cv::Mat1f::ones(image.size()), distance(image.size());
  weight(cv::Rect(2, 2, image.cols - 4, image.rows - 4)) = 0;
  Ground g{.colour = cv::Mat3f(image.size()), .distance = distance};
  for (int round = 0; round < 6; ++round) {
    const cv::Mat1d p = plane_of(image, weight);
    for (int y = 0; y < image.rows; ++y)
      for (int x = 0; x < image.cols; ++x) {
        const double u = double(x) / image.cols - 0.5, v = double(y) / image.rows - 0.5;
        for (int c = 0; c < 3; ++c) g.colour(y, x)[c] = static_cast<float>(p(0, c) + u * p(1, c) + v * p(2, c));
        distance(y, x) = static_cast<float>(cv::norm(image(y, x) - g.colour(y, x)));
      }
    g.noise = median_at_border(distance);
    const double scale = std::max(0.08, 1.5 * g.noise);
    for (int y = 0; y < image.rows; ++y)
      for (int x = 0; x < image.cols; ++x) weight(y, x) = static_cast<float>(std::pow(1 + std::pow(distance(y, x) / scale, 2), -2));
    g.level = (p(0, 0) + p(0, 1) + p(0, 2)) / 3;
    g.rise = std::hypot(p(1, 0) + p(1, 1) + p(1, 2), p(2, 0) + p(2, 1) + p(2, 2)) / 3;
  }
  return g;
}

/// An object cut out: how much of each pixel it covers, and its colour.
struct Cut {
  cv::Mat1f alpha;
  cv::Rect box;
  cv::Vec3f colour;
};

/// Returns the median, channel by channel, of the third of the object's pixels that stands out most.
cv::Vec3f colour_of(const cv::Mat3f& image, const cv::Mat1f& distance, const cv::Mat1b& mask) {
  std::vector<std::pair<float, cv::Vec3f>> pixels;
  for (int y = 0; y < image.rows; ++y)
    for (int x = 0; x < image.cols; ++x)
      if (mask(y, x)) pixels.emplace_back(distance(y, x), image(y, x));
  std::sort(pixels.begin(), pixels.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  const size_t kept = std::max<size_t>(pixels.size() / 3, 1);
  cv::Vec3f colour;
  for (int c = 0; c < 3; ++c) {
    std::vector<float> values;
    for (size_t i = 0; i < kept; ++i) values.push_back(pixels[i].second[c]);
    std::nth_element(values.begin(), values.begin() + std::ptrdiff_t(kept / 2), values.end());
    colour[c] = values[kept / 2];
  }
  return colour;
}

Cut cut_out(const cv::Mat3f& image, const Ground& ground, const cv::Mat1i& labels, int label) {
  const cv::Mat1b mask = labels == label, others = (labels != label) & (labels != 0);
  Cut cut{.alpha = cv::Mat1f::zeros(image.size()), .box = {}, .colour = colour_of(image, ground.distance, mask)};
  cv::Mat1b around;  // with the pixels that are covered in part
  cv::dilate(mask, around, cv::Mat1b::ones(3, 3));
  around.setTo(0, others);
  for (int y = 0; y < image.rows; ++y)
    for (int x = 0; x < image.cols; ++x) {
      if (!around(y, x)) continue;
      const cv::Vec3f contrast = cut.colour - ground.colour(y, x), here = image(y, x) - ground.colour(y, x);
      cut.alpha(y, x) = std::clamp(here.dot(contrast) / std::max(contrast.dot(contrast), 1e-6f), 0.0f, 1.0f);
    }
  constexpr int margin = 2;
  cut.box = cv::boundingRect(around);
  cut.box = (cut.box + cv::Size(2 * margin, 2 * margin) - cv::Point(margin, margin)) & cv::Rect({}, image.size());
  return cut;
}

std::vector<Cut> objects_of(const cv::Mat3f& image, const Ground& ground) {
  const cv::Mat1b mask = ground.distance > std::max(0.18, 2.3 * ground.noise);
  cv::Mat1i labels, stats;
  cv::Mat centres;
  const int count = cv::connectedComponentsWithStats(mask, labels, stats, centres, 4);
  for (int i = 1; i < count; ++i)
    if (stats(i, cv::CC_STAT_AREA) < least_area * double(image.total())) labels.setTo(0, labels == i);
  std::vector<Cut> all;
  for (int i = 1; i < count; ++i)
    if (stats(i, cv::CC_STAT_AREA) >= least_area * double(image.total())) all.push_back(cut_out(image, ground, labels, i));
  return all;
}

// ---- Words of an object --------------------------------------------------------------------------------------------------

/// The area that a form of radius 1 covers, and its centre of mass (y up).
struct Mass {
  double area = 0;
  Point centre;
};

const std::array<Mass, 8>& masses() {
  static const std::array<Mass, 8> all = [] {
    std::array<Mass, 8> result;
    constexpr int n = 256;
    for (size_t f = 0; f < forms.size(); ++f) {
      Mass& m = result[f];
      for (int i = 0; i < n * n; ++i) {
        const Point p = {reach * (2 * (i % n + 0.5) / n - 1), reach * (2 * (i / n + 0.5) / n - 1)};
        if (forms[f].distance(p) < 0) m.area += 1, m.centre.x += p.x, m.centre.y += p.y;
      }
      m.centre = {m.centre.x / m.area, m.centre.y / m.area};
      m.area *= 4 * reach * reach / (n * n);
    }
    return result;
  }();
  return all;
}

struct Fit {
  Placed place;
  double overlap = 0;
};

double overlap(const Cut& cut, const Placed& place) {
  double both = 0, sum = 0;
  for (int y = cut.box.y; y < cut.box.br().y; ++y)
    for (int x = cut.box.x; x < cut.box.br().x; ++x) {
      const double a = cut.alpha(y, x), t = coverage(place, {x + 0.5, y + 0.5});
      both += a * t, sum += a * a + t * t;
    }
  return 2 * both / std::max(sum, 1e-9);
}

/// Returns a form with the object's area and centre of mass, turned by `angle`.
Placed start_of(const Cut& cut, size_t form, double angle) {
  const cv::Moments m = cv::moments(cut.alpha);
  const Mass& mass = masses()[form];
  Placed p{.form = &forms[form], .centre = {}, .radius = std::sqrt(m.m00 / mass.area), .angle = angle};
  const double c = std::cos(angle), s = std::sin(angle);
  // coverage() takes pixel to form; this is the way back.
  const Point shift = {c * mass.centre.x - s * mass.centre.y, -s * mass.centre.x - c * mass.centre.y};
  p.centre = {m.m10 / m.m00 + 0.5 - p.radius * shift.x, m.m01 / m.m00 + 0.5 - p.radius * shift.y};
  return p;
}

/// Improves a fit uphill, one parameter at a time, with steps that become smaller.
Fit refined(const Cut& cut, Fit fit, double turn) {
  double move = 0.12 * fit.place.radius, grow = 1.06, twist = turn / 4;
  for (int round = 0; round < 4; ++round, move /= 2, grow = std::sqrt(grow), twist /= 2)
    for (int direction = 0; direction < 8; ++direction) {
      Placed p = fit.place;
      const double sign = direction % 2 ? -1 : 1;
      if (direction / 2 == 0) p.centre.x += sign * move;
      if (direction / 2 == 1) p.centre.y += sign * move;
      if (direction / 2 == 2) p.radius *= sign > 0 ? grow : 1 / grow;
      if (direction / 2 == 3) p.angle = std::clamp(p.angle + sign * twist, -turn, turn);
      if (const double value = overlap(cut, p); value > fit.overlap) fit = {p, value};
    }
  return fit;
}

Fit fit_of(const Cut& cut, double turn) {
  std::vector<Fit> best;
  for (size_t f = 0; f < forms.size(); ++f) {
    Fit of_form;
    const bool round = forms[f].word == "circle" || forms[f].word == "ring";
    for (int k = round ? 0 : -2; k <= (round ? 0 : 2); ++k) {
      const Placed p = start_of(cut, f, turn * k / 2);
      if (const double value = overlap(cut, p); value > of_form.overlap) of_form = {p, value};
    }
    best.push_back(of_form);
  }
  std::sort(best.begin(), best.end(), [](const Fit& a, const Fit& b) { return a.overlap > b.overlap; });
  best.resize(4);
  for (Fit& f : best)
    if (f.place.form) f = refined(cut, f, turn);
  return *std::max_element(best.begin(), best.end(), [](const Fit& a, const Fit& b) { return a.overlap < b.overlap; });
}

/// Returns the nearest word in CIE L*a*b*; lightness counts half, as shades of a colour have its name.
std::string colour_word(const cv::Vec3f& rgb, bool grey) {
  if (grey) return {};
  const auto lab = [](const cv::Vec3f& c) {
    cv::Mat3f from(1, 1, c), to;
    cv::cvtColor(from, to, cv::COLOR_RGB2Lab);
    return cv::Vec3f(to(0, 0)[0] / 2, to(0, 0)[1], to(0, 0)[2]);
  };
  const cv::Vec3f here = lab(rgb);
  std::string word;
  double least = 45;  // as far as the two nearest words are: beyond, it has no name
  for (const NamedColor& c : colours) {
    const double d = cv::norm(here - lab({float(c.color.red), float(c.color.green), float(c.color.blue)}));
    if (d < least) least = d, word = c.word;
  }
  return word.empty() ? "colourless" : word;
}

/// Returns the word whose diameters are nearest.
std::string size_word(double diameter, size_t objects, const std::vector<std::string>& words) {
  std::string nearest;
  double least = 1e9;
  for (const std::string& word : words) {
    const Size& s = find(sizes_of(objects), word);
    const double d = std::max({s.lo - diameter, diameter - s.hi, 0.0});
    if (d < least) least = d, nearest = word;
  }
  return nearest;
}

/// Returns the median difference of two neighbours in a row, in grey; of the picture in its own size, since averaging down takes noise
/// away.
double grain_of(std::span<const float> pixels, const ImageShape& shape) {
  std::vector<float> steps;
  for (int64_t y = 0; y < shape.height; ++y)
    for (int64_t x = 1; x < shape.width; ++x) {
      float sum = 0;
      for (int64_t c = 0; c < shape.channels; ++c) {
        const size_t at = static_cast<size_t>((c * shape.height + y) * shape.width + x);
        sum += pixels[at] - pixels[at - 1];
      }
      steps.push_back(std::abs(sum) / static_cast<float>(2 * shape.channels));
    }
  std::nth_element(steps.begin(), steps.begin() + std::ptrdiff_t(steps.size() / 2), steps.end());
  return steps[steps.size() / 2];
}

std::string background_word(const Ground& g, double grain) {
  if (g.level > 0.6) return "light";
  if (g.rise > 0.15) return "gradient";
  return grain > 0.025 ? "noisy" : "dark";
}

/// Returns the place of the first, seen from the second.
std::string relation_word(Point first, Point second) {
  const Point d = first - second;
  const Point* best = nullptr;
  std::string word;
  for (const Relation& r : relations)
    if (!best || dot(r.towards, d) > dot(*best, d)) best = &r.towards, word = r.word;
  return word;
}

}  // namespace

std::string Seen::relation(bool swapped) const { return relation_word(centres[swapped], centres[!swapped]); }

std::string Seen::text(bool swapped) const {
  if (objects.empty()) return "nothing";
  if (objects.size() > 2) return std::to_string(objects.size()) + " objects";
  if (objects.size() == 1) return text_of({objects, "", background});
  return text_of({{objects[swapped], objects[!swapped]}, relation(swapped), background});
}

Seen read_picture(std::span<const float> pixels, const ImageShape& shape, const Reading& how) {
  const cv::Mat3f image = picture(pixels, shape);
  const bool grey = shape.channels == 1;
  const Ground ground = ground_of(image);
  const std::vector<Cut> cuts = objects_of(image, ground);
  Seen seen{.objects = {}, .centres = {}, .background = background_word(ground, grain_of(pixels, shape))};
  for (const Cut& cut : cuts) {
    const Fit fit = fit_of(cut, how.rotation * std::numbers::pi / 180);
    const double diameter = 2 * fit.place.radius / std::min(image.rows, image.cols);
    const bool clear = fit.place.form && fit.overlap >= how.overlap;
    seen.objects.push_back(
        {size_word(diameter, cuts.size(), how.sizes), colour_word(cut.colour, grey), clear ? std::string(fit.place.form->word) : "thing"});
    seen.centres.push_back(fit.place.centre);
  }
  return seen;
}

}  // namespace brume::shapes
