#include "brume/nn/ops/op_profile.h"

namespace brume::nn {
namespace {
thread_local OpProfile* profile = nullptr;
thread_local bool timing = false;  // an operation that calls others is one
}  // namespace

OpProfile::OpProfile() : outer_(profile) { profile = this; }
OpProfile::~OpProfile() { profile = outer_; }

double OpProfile::flops() const {
  double sum = 0;
  for (const auto& [_, row] : rows_) sum += row.flops;
  return sum;
}

OpTimer::OpTimer(const char* name, double flops) : profile_(timing ? nullptr : profile), name_(name), flops_(flops) {
  if (!profile_) return;
  timing = true;
  start_ = std::chrono::steady_clock::now();
}

OpTimer::~OpTimer() {
  if (!profile_) return;
  timing = false;
  OpProfile::Row& row = profile_->rows_[name_];
  row.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  row.flops += flops_;
  ++row.calls;
}

}  // namespace brume::nn
