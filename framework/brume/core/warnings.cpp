#include "brume/core/warnings.h"

#include <utility>

namespace brume {
namespace {
thread_local const WarningScope* innermost = nullptr;
}  // namespace

WarningScope::WarningScope(Receive receive) : receive_(std::move(receive)), outer_(innermost) { innermost = this; }
WarningScope::~WarningScope() { innermost = outer_; }

void warn(const std::string& text) {
  if (innermost && innermost->receive_) innermost->receive_(text);
}

}  // namespace brume
