// Half a cosine (Loshchilov & Hutter 2017, eq. 5, without restarts).
//
//   factor = end + (1 - end) (1 + cos(pi t / T)) / 2
#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/lr_schedule.h"

namespace brume::plugins {
namespace {

class Cosine final : public LearningRateSchedule {
 public:
  struct Options {
    double end = 0;
    void declare(Fields& f) { f.field("end", end, "share of the learning rate that it ends at", within(0, 1)); }
  };
  explicit Cosine(const Options& o) : o_(o) {}
  double factor(const Progress& p) const override {
    const double fall = std::max(0.0, 0.5 * (1 + std::cos(M_PI * p.share())));
    return o_.end == 0 ? fall : o_.end + (1 - o_.end) * fall;
  }

 private:
  Options o_;
};

}  // namespace

void register_lr_schedule_cosine(Registry& r) { r.add<LearningRateSchedule, Cosine>("cosine", "half a cosine, down to 0"); }

}  // namespace brume::plugins
