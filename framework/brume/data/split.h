#pragma once
// Which part of a set something belongs to, by the hash of its name: the same whatever else is in the set, and in whatever order.
#include <string_view>

#include "brume/config/fields.h"
#include "brume/core/fnv.h"
#include "brume/core/seed.h"

namespace brume {

struct Split {
  enum class Part { all, train, test };
  Part part = Part::all;
  double held_out = 0.1;

  /// Declares `split` and `held_out`. `of`: what is split, "of the images, by the hash of their names".
  void declare(Fields& f, std::string_view of) {
    f.choice("split", part, of, {{"all", Part::all}, {"train", Part::train}, {"test", Part::test}});
    f.field("held_out", held_out, "share of the split 'test'", within(0, 1));
  }
  std::string_view word() const { return part == Part::all ? "all" : part == Part::test ? "test" : "train"; }
  /// Returns true if the part holds `name`: splitmix64(FNV-1a(name)) mod 1000 < 1000 held_out is `test`.
  bool has(std::string_view name) const {
    if (part == Part::all) return true;
    return (static_cast<double>(SplitMix(fnv1a(name)).below(1000)) < 1000 * held_out) == (part == Part::test);
  }
};

}  // namespace brume
