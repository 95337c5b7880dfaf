// The inverse square root of the step (Karras et al. 2024, EDM2, sec. 4.2), from the step `from` of the training on.
//
//   factor = 1 / sqrt(max(t / from, 1))
#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/lr_schedule.h"

namespace brume::plugins {
namespace {

class InverseSqrt final : public LearningRateSchedule {
 public:
  struct Options {
    int64_t from = 10000;
    void declare(Fields& f) { f.field("from", from, "step from which the learning rate falls", at_least(1)); }
  };
  explicit InverseSqrt(const Options& o) : o_(o) {}
  double factor(const Progress& p) const override { return 1 / std::sqrt(std::max(double(p.step + p.warmup) / double(o_.from), 1.0)); }
  bool depends_on_steps() const override { return false; }

 private:
  Options o_;
};

}  // namespace

void register_lr_schedule_inverse_sqrt(Registry& r) {
  r.add<LearningRateSchedule, InverseSqrt>("inverse_sqrt", "1 / sqrt(step), after a while at the full learning rate");
}

}  // namespace brume::plugins
