// Points of a square grid of Gaussians in the plane: images of two channels and one pixel, endless, without files. The example on which a
// generator shows whether it finds every mode (Srivastava et al. 2017, "VEEGAN", sec. 4; Xiao et al. 2022, app. B.2).
//
//   x = mean_k + std n,   mean_k = spacing (i - (side - 1) / 2, j - (side - 1) / 2),   k = i side + j, each as likely
//
// Point `index` of draw `draw` follows from (seed, index, draw) alone. The classes are the modes.
#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "brume/config/registry.h"
#include "brume/core/dataset.h"
#include "brume/core/seed.h"

namespace brume::plugins {
namespace {

class Gaussians final : public Dataset {
 public:
  struct Options {
    int64_t side = 5, seed = 0;
    double spacing = 0.45, std = 0.01125;
    void declare(Fields& f) {
      f.field("side", side, "modes along each side of the grid", within(1, 1000));
      f.field("spacing", spacing, "distance of neighbouring modes", more_than(0));
      f.field("std", std, "standard deviation about a mode", more_than(0));
      f.field("seed", seed, "of the draws");
    }
  };
  static void check(const Options&, const Context& c) {
    if (c.shape != ImageShape{2, 1, 1})
      throw ConfigError(fmt::format("points of a plane are images of 2x1x1, and model.image is {}", c.shape.text()));
  }
  Gaussians(const Options& o, const Context&) : o_(o) {
    for (int64_t i = 0; i < o.side * o.side; ++i) classes_.push_back(fmt::format("{},{}", i / o.side, i % o.side));
  }

  int64_t size() const override { return 0; }
  const std::vector<std::string>& classes() const override { return classes_; }
  Annotation read(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    SplitMix random(mix_seed(uint64_t(o_.seed), draw, uint64_t(index)));
    const auto mode = int64_t(random.below(uint64_t(o_.side * o_.side)));
    const double radius = std::sqrt(-2 * std::log(1 - random.uniform())), angle = 2 * std::numbers::pi * random.uniform();
    const auto at = [&](int64_t i) { return o_.spacing * (double(i) - double(o_.side - 1) / 2); };
    pixels[0] = float(at(mode / o_.side) + o_.std * radius * std::cos(angle));
    pixels[1] = float(at(mode % o_.side) + o_.std * radius * std::sin(angle));
    return {.label = mode};
  }

 private:
  Options o_;
  std::vector<std::string> classes_;
};

}  // namespace

void register_dataset_gaussians(Registry& r) {
  r.add<Dataset, Gaussians>("gaussians", "points of a grid of Gaussians in the plane: 25 modes for few-step models");
}

}  // namespace brume::plugins
