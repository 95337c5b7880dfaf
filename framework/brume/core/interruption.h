#pragma once
// Stops long work between two network calls.
#include <functional>

namespace brume {

/// Says whether the work of this thread is to stop, while it lives, instead of any earlier scope.
class StopScope {
 public:
  using Asked = std::function<bool()>;
  explicit StopScope(Asked asked);  ///< empty: nothing stops
  ~StopScope();
  StopScope(const StopScope&) = delete;
  StopScope& operator=(const StopScope&) = delete;

 private:
  friend void stop_if_asked();
  Asked asked_;
  const StopScope* outer_;
};

/// Throws Interrupted if the innermost scope of this thread says so. Called before each call of a network.
void stop_if_asked();

}  // namespace brume
