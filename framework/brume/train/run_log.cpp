#include "brume/train/run_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "brume/config/errors.h"
#include "brume/train/metrics_file.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

double resident_megabytes() {
  std::ifstream in("/proc/self/statm");
  double total = 0, resident = 0;
  in >> total >> resident;
  return resident * double(::sysconf(_SC_PAGESIZE)) / 1e6;
}

/// Returns the seconds that the lines of a run have counted so far.
double seconds_of(const fs::path& file) {
  double seconds = 0;
  for (const MetricsLine& line : read_metrics(file))
    for (const auto& [name, value] : line.figures)
      if (name == "seconds") seconds = value;
  return seconds;
}

}  // namespace

const std::vector<std::string>& log_words() {
  static const std::vector<std::string> words{"metrics", "tensorboard"};
  return words;
}

RunLog::RunLog(fs::path directory, const std::vector<std::string>& writers, const Value& resolved, int64_t step)
    : file_(directory / "metrics.jsonl") {
  trim_metrics(file_, step);
  earlier_ = seconds_of(file_);
  if (std::find(writers.begin(), writers.end(), "tensorboard") != writers.end()) tensorboard_.emplace(directory, resolved, step);
}

void RunLog::begin() { begin_ = last_ = Clock::now(); }

void RunLog::count(int64_t images, double waited) {
  images_ += double(images);
  waited_ += waited;
}

Metrics RunLog::machine() {
  constexpr double measurable = 0.01;
  const Clock::time_point now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - begin_).count(), window = std::chrono::duration<double>(now - last_).count();
  const Metrics all{{"images_per_second", seconds >= measurable ? images_ / seconds : 0},
                    {"data_share", window > 0 ? std::min(1.0, waited_ / window) : 0},
                    {"memory_mb", resident_megabytes()},
                    {"seconds", earlier_ + seconds}};
  waited_ = 0;
  last_ = now;
  return all;
}

void RunLog::append(int64_t step, const Metrics& figures) {
  nlohmann::ordered_json line{{"step", step}};
  for (const auto& [name, value] : figures) line[name] = value;
  std::ofstream out(file_, std::ios::app);
  out << line.dump() << "\n";
  if (!out.flush()) throw ConfigError(fmt::format("{}: cannot be written: {}", file_.string(), std::strerror(errno)));
  if (tensorboard_) tensorboard_->scalars(step, figures);
}

void RunLog::picture(int64_t step, const fs::path& png) {
  if (tensorboard_) tensorboard_->image(step, png);
}

}  // namespace brume
