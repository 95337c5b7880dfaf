#include "brume/image/aspect_buckets.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "brume/config/counted.h"
#include "brume/config/errors.h"

namespace brume {

void AspectBuckets::declare(Fields& f) {
  f.field("step", step, "sides are multiples of this: what the network and the first stage take", within(1, 4096));
  f.field("smallest", smallest, "shortest side; absent: half the model's shorter side", within(1, 65536));
  f.field("largest", largest, "longest side; absent: twice the model's longer side", within(1, 65536));
  f.require(!smallest || !largest || *smallest <= *largest, "smallest", "must not be larger than largest");
}

std::vector<ImageShape> AspectBuckets::shapes(const ImageShape& model) const {
  const int64_t least = smallest.value_or(std::min(model.height, model.width) / 2),
                most = largest.value_or(2 * std::max(model.height, model.width)), pixels = model.height * model.width,
                first = std::max<int64_t>(1, (least + step - 1) / step);
  std::set<std::pair<int64_t, int64_t>> sides;
  for (int64_t n = first; n * step <= most; ++n) {
    const int64_t side = n * step, other = std::min(pixels / side, most) / step * step;
    if (other < first * step) continue;
    sides.emplace(side, other);
    sides.emplace(other, side);
  }
  if (sides.empty())
    throw ConfigError(fmt::format("no bucket can be made: sides are multiples of {} from {} to {}, and {} has {}", step, least, most,
                                  model.text(), counted(pixels, "pixel")));
  std::vector<ImageShape> all;
  for (auto it = sides.rbegin(); it != sides.rend(); ++it) all.push_back({model.channels, it->first, it->second});
  return all;
}

size_t nearest_shape(const std::vector<ImageShape>& shapes, int64_t height, int64_t width) {
  const auto distance = [&](const ImageShape& s) {
    return std::abs(std::log(double(s.height) * double(width) / (double(s.width) * double(height))));
  };
  size_t best = 0;
  for (size_t i = 1; i < shapes.size(); ++i) {
    const double now = distance(shapes[i]), before = distance(shapes[best]);
    if (now < before || (now == before && shapes[i].numel() > shapes[best].numel())) best = i;
  }
  return best;
}

}  // namespace brume
