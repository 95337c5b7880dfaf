#include "brume/core/interruption.h"

#include <utility>

#include "brume/config/errors.h"

namespace brume {
namespace {
thread_local const StopScope* innermost = nullptr;
}  // namespace

StopScope::StopScope(Asked asked) : asked_(std::move(asked)), outer_(innermost) { innermost = this; }
StopScope::~StopScope() { innermost = outer_; }

void stop_if_asked() {
  if (innermost && innermost->asked_ && innermost->asked_()) throw Interrupted();
}

}  // namespace brume
