// Cosines with warm restarts (Loshchilov & Hutter 2017, eq. 5): the rate falls by half a cosine and jumps back, `cycles` times. Each cycle
// is `factor` times as long as the one before (their T_mult).
//
//   factor = (1 + cos(pi u)) / 2,  u = the share of the cycle that is over
#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/lr_schedule.h"

namespace brume::plugins {
namespace {

class CosineRestarts final : public LearningRateSchedule {
 public:
  struct Options {
    int64_t cycles = 1;
    double factor = 1;
    void declare(Fields& f) {
      f.field("cycles", cycles, "number of cycles", within(1, 1000));
      f.field("factor", factor, "length of a cycle in lengths of the one before", within(1, 100));
    }
  };
  explicit CosineRestarts(const Options& o) : o_(o) {}
  double factor(const Progress& p) const override {
    return p.step >= p.steps ? 0 : std::max(0.0, 0.5 * (1 + std::cos(M_PI * share_of_cycle(p.share()))));
  }

 private:
  /// Returns the share of the current cycle that is over at a share of all cycles.
  double share_of_cycle(double progress) const {
    if (o_.factor == 1) return std::fmod(double(o_.cycles) * progress, 1.0);
    double all = 0, length = 1;
    for (int64_t i = 0; i < o_.cycles; ++i, length *= o_.factor) all += length;
    double begin = 0;
    length = 1;
    for (int64_t i = 1; i < o_.cycles && progress * all >= begin + length; ++i) begin += length, length *= o_.factor;
    return (progress * all - begin) / length;
  }
  Options o_;
};

}  // namespace

void register_lr_schedule_cosine_restarts(Registry& r) {
  r.add<LearningRateSchedule, CosineRestarts>("cosine_restarts", "half cosines down to 0, one after the other");
}

}  // namespace brume::plugins
