#pragma once
// One line that says how far long work is: on a terminal it is rewritten in place, elsewhere it is printed now and then.
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace brume {
struct Step;

class Progress {
 public:
  /// Begins a line of progress. `unit` is what the rate counts ("images"), `start` the beginning of the count (a resumed training).
  Progress(std::string what, int64_t total, std::string unit, int64_t start = 0);
  ~Progress();
  /// Shows `done` of the total; each counts for `units`. `note` stands in the middle ("loss 0.0312").
  void update(int64_t done, double units, const std::string& note = "");
  /// Ends the line.
  void finish();
  /// Shows no progress in this process from now on.
  static void hide();
  double rate() const { return rate_; }  ///< units per second since the beginning

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_, unit_;
  int64_t total_, start_;
  double units_ = 0, rate_ = 0;
  Clock::time_point begin_, shown_;
  bool terminal_, open_ = false;
};

namespace tools {

/// Returns an observer of sampling with this many steps, which moves `progress` and ends the run after Ctrl-C.
std::function<bool(int64_t first, const Step&)> moving(Progress& progress, int64_t steps);

}  // namespace tools
}  // namespace brume
