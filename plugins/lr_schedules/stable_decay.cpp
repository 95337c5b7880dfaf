// Warm-up, stable, decay (Hu et al. 2024, "MiniCPM", sec. 4.2; Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed
// Training Durations"): the full learning rate until a last share of the steps, over which it falls. The stable part can be resumed and
// extended, and does not depend on how long the training is.
//
//   factor = end + (1 - end) fall(u),   u = the share of the fall that is over
//   fall(u) = (1 + cos(pi u)) / 2, 1 - u or 1 - sqrt(u)
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/lr_schedule.h"

namespace brume::plugins {
namespace {

class StableDecay final : public LearningRateSchedule {
 public:
  enum class Shape { cosine, linear, sqrt };
  struct Options {
    double share = 0.2, end = 0;
    Shape shape = Shape::cosine;
    void declare(Fields& f) {
      f.field("share", share, "share of the steps after the warm-up over which it falls", within(0, 1));
      f.choice("shape", shape, "of the fall; sqrt = 1 - sqrt(u)",
               {{"cosine", Shape::cosine}, {"linear", Shape::linear}, {"sqrt", Shape::sqrt}});
      f.field("end", end, "share of the learning rate that it ends at", within(0, 1));
    }
  };
  explicit StableDecay(const Options& o) : o_(o) {}
  double factor(const Progress& p) const override {
    const double stable = (1 - o_.share) * double(p.steps), t = double(p.step);
    if (p.step >= p.steps) return o_.end;
    return t < stable ? 1 : o_.end + (1 - o_.end) * fall((t - stable) / (double(p.steps) - stable));
  }

 private:
  double fall(double u) const {
    switch (o_.shape) {
      case Shape::cosine: return 0.5 * (1 + std::cos(M_PI * u));
      case Shape::linear: return 1 - u;
      case Shape::sqrt: return 1 - std::sqrt(u);
    }
    return 1;
  }
  Options o_;
};

}  // namespace

void register_lr_schedule_stable_decay(Registry& r) {
  r.add<LearningRateSchedule, StableDecay>("stable_decay", "the full learning rate, then a fall at the end (WSD)");
}

}  // namespace brume::plugins
