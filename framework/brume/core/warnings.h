#pragma once
// Warnings of code that computes, for whoever called it. The library prints nothing.
#include <functional>
#include <string>

namespace brume {

/// Receives the warnings of this thread while it lives, in front of any earlier scope.
class WarningScope {
 public:
  using Receive = std::function<void(const std::string& text)>;
  explicit WarningScope(Receive receive);
  ~WarningScope();
  WarningScope(const WarningScope&) = delete;
  WarningScope& operator=(const WarningScope&) = delete;

 private:
  friend void warn(const std::string& text);
  Receive receive_;
  const WarningScope* outer_;
};

/// Gives a warning, without a line end, to the innermost scope of this thread; drops it without one.
void warn(const std::string& text);

}  // namespace brume
