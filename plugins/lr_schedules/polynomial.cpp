// A power of the share that is left; `linear` is the straight line.
//
//   factor = end + (1 - end) (1 - t / T)^power
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/lr_schedule.h"

namespace brume::plugins {
namespace {

class Polynomial final : public LearningRateSchedule {
 public:
  struct Options {
    double power = 2, end = 0;
    void declare(Fields& f) {
      f.field("power", power, "1 = a straight line", more_than(0));
      f.field("end", end, "share of the learning rate that it ends at", within(0, 1));
    }
  };
  explicit Polynomial(const Options& o) : o_(o) {}
  double factor(const Progress& p) const override { return o_.end + (1 - o_.end) * std::pow(1 - p.share(), o_.power); }

 private:
  Options o_;
};

}  // namespace

void register_lr_schedule_polynomial(Registry& r) {
  r.add<LearningRateSchedule, Polynomial>("polynomial", "a power of the share of the steps that is left");
  r.preset<LearningRateSchedule, Polynomial>("linear", "polynomial", "a straight line down to 0",
                                             [](Polynomial::Options& o) { o.power = 1; });
}

}  // namespace brume::plugins
