#pragma once
// The small world of the data set `shapes`: its words, its forms and its captions. It stands here, and not in the data set, because two
// plugins that may not know one another need the same world: `shapes` draws it, `caption_accuracy` reads it back. No torch.
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "brume/core/color.h"

namespace brume::shapes {

struct Point {
  double x = 0, y = 0;
};
inline Point operator-(Point a, Point b) { return {a.x - b.x, a.y - b.y}; }
inline double dot(Point a, Point b) { return a.x * b.x + a.y * b.y; }

// ---- Words ---------------------------------------------------------------------------------------------------------------

/// A signed distance, negative inside, of a form about as large as the unit circle; y points up.
struct Form {
  std::string_view word;
  double (*distance)(Point);
};
extern const std::array<Form, 8> forms;
constexpr double reach = 1.12;  ///< no form leaves the circle of this radius

struct NamedColor {
  std::string_view word;
  Color color;
};
constexpr std::array<NamedColor, 8> colours = {{{"red", {0.88, 0.16, 0.18}},
                                                {"green", {0.18, 0.68, 0.28}},
                                                {"blue", {0.16, 0.38, 0.92}},
                                                {"yellow", {0.97, 0.82, 0.12}},
                                                {"purple", {0.58, 0.24, 0.78}},
                                                {"orange", {0.96, 0.52, 0.10}},
                                                {"pink", {0.97, 0.50, 0.70}},
                                                {"cyan", {0.12, 0.74, 0.80}}}};

struct Size {
  std::string_view word;
  double lo, hi;  ///< diameter over the image's smaller side; a gap between two words keeps them apart
};
/// Of an object that is alone, and of one of two, which must be smaller to have room side by side. In an image of 32x32 the small
/// ones of two are 8.6 to 9.6 pixels across, the large ones 13.1 to 14.4.
constexpr std::array<Size, 3> sizes = {{{"small", 0.40, 0.50}, {"medium", 0.56, 0.66}, {"large", 0.72, 0.84}}};
constexpr std::array<Size, 3> sizes_of_two = {{{"small", 0.27, 0.30}, {"medium", 0.345, 0.365}, {"large", 0.41, 0.44}}};
inline const std::array<Size, 3>& sizes_of(size_t objects) { return objects > 1 ? sizes_of_two : sizes; }

struct Background {
  std::string_view word;
  double lo, hi;  ///< grey level
  double rise;    ///< how much lighter the other end is
  double noise;   ///< of each pixel
};
constexpr std::array<Background, 4> backgrounds = {
    {{"dark", 0.06, 0.18, 0, 0}, {"light", 0.84, 0.95, 0, 0}, {"gradient", 0.04, 0.16, 0.34, 0}, {"noisy", 0.16, 0.26, 0, 0.14}}};

/// The place of the first of two objects, seen from the second.
struct Relation {
  std::string_view word;
  Point towards;  ///< y down, as rows go
};
constexpr std::array<Relation, 4> relations = {{{"left of", {-1, 0}}, {"right of", {1, 0}}, {"above", {0, -1}}, {"below", {0, 1}}}};

template <class Words>
std::vector<std::string> names(const Words& words) {
  std::vector<std::string> all;
  for (const auto& w : words) all.emplace_back(w.word);
  return all;
}
/// Returns the entry of a word that is in the table.
template <class Words>
const auto& find(const Words& words, std::string_view word) {
  size_t i = 0;
  while (words.at(i).word != word) ++i;
  return words[i];
}

// ---- Captions ------------------------------------------------------------------------------------------------------------

struct Described {
  std::string size, colour, form;  ///< no colour in a grey image
  bool operator==(const Described&) const = default;
};

/// What a caption says: one object, or two and how they stand.
struct Caption {
  std::vector<Described> objects;
  std::string relation, background;  ///< empty if the caption says nothing of it
  bool operator==(const Caption&) const = default;
};

/// Returns "a small red circle left of a large blue square on a dark background".
std::string text_of(const Caption& caption);
/// Returns its inverse. Throws ConfigError, with the nearest word, if `text` is not of this world.
Caption read_caption(const std::string& text);

// ---- Drawing -------------------------------------------------------------------------------------------------------------

/// The place of an object; pixels from the top left corner, y down.
struct Placed {
  const Form* form = nullptr;
  Point centre;
  double radius = 0, angle = 0;
};

/// Returns the share of the pixel around `pixel` that the object covers: clamp(1/2 - distance, 0, 1).
double coverage(const Placed& o, Point pixel);

}  // namespace brume::shapes
