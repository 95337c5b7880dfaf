#pragma once
// A colour.

namespace brume {

/// Red, green and blue, each from 0 to 1.
struct Color {
  double red = 0, green = 0, blue = 0;
};

/// Returns the colour of three bytes, each from 0 to 255.
constexpr Color color_of_bytes(int red, int green, int blue) { return {red / 255.0, green / 255.0, blue / 255.0}; }

/// Returns a + t (b - a).
constexpr Color blend(Color a, Color b, double t) {
  return {a.red + t * (b.red - a.red), a.green + t * (b.green - a.green), a.blue + t * (b.blue - a.blue)};
}

}  // namespace brume
