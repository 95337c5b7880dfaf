#pragma once
// Pictures of the world of `shapes`, read back into words.
#include <span>
#include <string>
#include <vector>

#include "brume/core/dataset.h"
#include "brume/data/shapes/world.h"

namespace brume::shapes {

/// How pictures are read.
struct Reading {
  std::vector<std::string> sizes = {"small", "large"};  ///< the words for an object's size
  double rotation = 15;                                 ///< the largest turn of a form to either side, in degrees
  double overlap = 0.8;                                 ///< with the rendering of a form (Dice), below which a thing has none
};

/// What is there.
struct Seen {
  std::vector<Described> objects;
  std::vector<Point> centres;
  std::string background;
  /// Returns the place of the first object, seen from the second; `swapped`: the second, from the first.
  std::string relation(bool swapped) const;
  std::string text(bool swapped) const;
};

/// Returns what a picture shows. pixels: [C, H, W] in [-1, 1], of 1 or 3 channels.
Seen read_picture(std::span<const float> pixels, const ImageShape& shape, const Reading& how);

}  // namespace brume::shapes
