// The learning rate of the optimizer, from the end of the warm-up to the end.
#include "brume/config/registry.h"
#include "brume/core/lr_schedule.h"

namespace brume::plugins {
namespace {

class Constant final : public LearningRateSchedule {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit Constant(const Options&) {}
  double factor(const Progress&) const override { return 1; }
  bool depends_on_steps() const override { return false; }
};

}  // namespace

void register_lr_schedule_constant(Registry& r) { r.add<LearningRateSchedule, Constant>("constant", "the same at every step"); }

}  // namespace brume::plugins
