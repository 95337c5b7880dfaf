#pragma once
// What a training writes while it runs: metrics.jsonl, TensorBoard's events, and what they say of the machine.
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "brume/train/tensorboard.h"

namespace brume {

/// Returns the words of `train.log`.
const std::vector<std::string>& log_words();

class RunLog {
 public:
  /// Goes on with the files of a run directory: what they have of later steps than `step` is removed. `writers`: of `train.log`.
  RunLog(std::filesystem::path directory, const std::vector<std::string>& writers, const Value& resolved, int64_t step);

  /// Begins to measure.
  void begin();
  /// Counts the images of a step, and the seconds that were spent waiting for them.
  void count(int64_t images, double waited);
  /// Returns images_per_second since begin(); data_share, the share of the time since the last call that was spent waiting for images;
  /// memory_mb, the resident memory of the process; seconds of the whole training, with those before it was resumed.
  Metrics machine();

  /// Notes what has been gathered since the last line, as text, for the next training file.
  void note(std::string gathered) { gathered_ = std::move(gathered); }
  const std::string& gathered() const { return gathered_; }

  void append(int64_t step, const Metrics& figures);
  void picture(int64_t step, const std::filesystem::path& png);

 private:
  using Clock = std::chrono::steady_clock;
  std::filesystem::path file_;
  std::optional<TensorBoardLog> tensorboard_;
  Clock::time_point begin_ = Clock::now(), last_ = begin_;
  std::string gathered_;
  double images_ = 0, waited_ = 0, earlier_ = 0;
};

}  // namespace brume
