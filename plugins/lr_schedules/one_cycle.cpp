// One cycle (Smith & Topin 2018; PyTorch's OneCycleLR with cosines): the rate rises from 1 / start to its largest within a share `rise` of
// the steps, and then falls to 1 / (start end).
#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/lr_schedule.h"

namespace brume::plugins {
namespace {

class OneCycle final : public LearningRateSchedule {
 public:
  struct Options {
    double rise = 0.3, start = 25, end = 1e4;
    void declare(Fields& f) {
      f.field("rise", rise, "share of the steps over which it rises", within(0, 1));
      f.field("start", start, "the learning rate divided by this is the first", at_least(1));
      f.field("end", end, "the first divided by this is the last", at_least(1));
    }
  };
  explicit OneCycle(const Options& o) : o_(o) {}
  double factor(const Progress& p) const override {
    const double first = 1 / o_.start, last = first / o_.end;
    const double end = double(p.steps) - 1, top = o_.rise * double(p.steps) - 1, t = std::min(double(p.step), end);
    if (t <= top) return top > 0 ? between(first, 1, t / top) : 1;
    return end > top ? between(1, last, (t - top) / (end - top)) : last;
  }

 private:
  static double between(double from, double to, double share) { return to + (from - to) / 2 * (1 + std::cos(M_PI * share)); }
  Options o_;
};

}  // namespace

void register_lr_schedule_one_cycle(Registry& r) {
  r.add<LearningRateSchedule, OneCycle>("one_cycle", "up to the learning rate and down again");
}

}  // namespace brume::plugins
