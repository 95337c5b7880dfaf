// Whether a picture of the world of `shapes` is what its caption says: the picture is read back, and the words are compared.
//
// The ground is a plane fitted to each channel, robustly (Cauchy weights 1/(1 + (d/s)^2)^2, Holland & Welsch 1977, from the border
// inwards). What stands out is cut into connected objects. The colour of an object is that of its most certain pixels, and its word the
// nearest in CIE L*a*b*. With that colour every pixel tells its coverage, alpha = <pixel - ground, colour - ground> / |colour - ground|^2,
// and the form is the one whose rendering covers the same: greatest soft overlap 2 sum(a t) / sum(a^2 + t^2) (Dice 1945) over place, radius
// and turn. The fitted radius gives the size, in the classes of one object or of two; the centres give the relation.
#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "brume/config/errors.h"
#include "brume/config/fields.h"
#include "brume/config/registry.h"
#include "brume/config/suggest.h"
#include "brume/core/metric.h"
#include "brume/data/shapes/reading.h"

namespace brume::plugins {
namespace {

using namespace shapes;

class CaptionAccuracy final : public Metric {
 public:
  struct Options : Reading {
    void declare(Fields& f) {
      f.field("sizes", sizes, "the words for an object's size, as the data set has them");
      f.require(!sizes.empty(), "sizes", "needs one word at least");
      for (const std::string& word : sizes)
        if (const auto known = names(shapes::sizes); std::find(known.begin(), known.end(), word) == known.end())
          f.require(false, "sizes", "unknown word '" + word + "'" + hint(word, known));
      f.field("rotation", rotation, "the largest rotation of a form to either side that is searched, in degrees", within(0, 180));
      f.field("overlap", overlap, "least agreement (Dice) with the rendering of a form that makes an object count as that form",
              within(0, 1));
    }
  };

  explicit CaptionAccuracy(Options options) : o_(std::move(options)) {}

  Verdict judge(std::span<const float> pixels, const ImageShape& shape, const Annotation& asked) const override {
    const Caption wanted = read_caption(asked.caption);
    check(wanted, shape);
    return compared(read_picture(pixels, shape, o_), wanted);
  }

 private:
  void check(const Caption& wanted, const ImageShape& shape) const {
    if ((shape.channels != 1 && shape.channels != 3) || std::min(shape.height, shape.width) < 8)
      throw ConfigError("caption_accuracy judges images of 1 or 3 channels and 8 pixels or more, not " + shape.text());
    for (const Described& d : wanted.objects)
      if (std::find(o_.sizes.begin(), o_.sizes.end(), d.size) == o_.sizes.end())
        throw ConfigError("caption '" + text_of(wanted) + "': '" + d.size + "' is none of the metric's 'sizes'");
  }

  /// Which of two things seen is the first that was asked for, is what makes more of the caption true.
  static Verdict compared(const Seen& seen, const Caption& wanted) {
    Verdict best = in_order(seen, wanted, false);
    if (seen.objects.size() == 2 && wanted.objects.size() == 2) {
      const Verdict other = in_order(seen, wanted, true);
      const auto score = [](const Verdict& v) {
        return std::count_if(v.parts.begin(), v.parts.end(), [](const auto& p) { return p.second; });
      };
      if (other.right || (!best.right && score(other) > score(best))) best = other;
    }
    return best;
  }

  static Verdict in_order(const Seen& seen, const Caption& wanted, bool swapped) {
    const size_t n = wanted.objects.size();
    const bool counted = seen.objects.size() == n;
    const auto all = [&](std::string Described::*word) {
      bool same = counted;
      for (size_t i = 0; same && i < n; ++i)
        same = wanted.objects[i].*word == seen.objects[swapped ? 1 - i : i].*word || (wanted.objects[i].*word).empty();
      return same;
    };
    Verdict v{.right = true, .group = n == 1 ? "one object" : "two objects", .parts = {{"count", counted}}, .seen = seen.text(swapped)};
    v.parts.emplace_back("colour", all(&Described::colour));
    v.parts.emplace_back("form", all(&Described::form));
    v.parts.emplace_back("size", all(&Described::size));
    if (!wanted.relation.empty()) v.parts.emplace_back("relation", counted && seen.relation(swapped) == wanted.relation);
    if (!wanted.background.empty()) v.parts.emplace_back("background", seen.background == wanted.background);
    for (const auto& [name, right] : v.parts) v.right = v.right && right;
    return v;
  }

  Options o_;
};

}  // namespace

void register_metric_caption_accuracy(Registry& r) {
  r.add<Metric, CaptionAccuracy>("caption_accuracy", "whether a picture of the world of shapes is what its caption says");
}

}  // namespace brume::plugins
