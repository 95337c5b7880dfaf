#include "program/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "brume/core/sampler.h"
#include "brume/request.h"
#include "program/program.h"

namespace brume {
namespace {

std::string duration(double seconds) {
  const int64_t s = int64_t(std::max(0.0, seconds) + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

bool hidden = false;

}  // namespace

Progress::Progress(std::string what, int64_t total, std::string unit, int64_t start)
    : what_(std::move(what)), unit_(std::move(unit)), total_(total), start_(start), begin_(Clock::now()), terminal_(isatty(2) == 1) {}

Progress::~Progress() { finish(); }

void Progress::hide() { hidden = true; }

void Progress::update(int64_t done, double units, const std::string& note) {
  constexpr double measurable = 0.01;  // seconds, less than which say nothing of a rate
  const auto now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  units_ += units;
  rate_ = seconds >= measurable ? units_ / seconds : 0;
  if (hidden) return;
  const double pause = terminal_ ? 0.1 : 15;
  const bool last = done >= total_;
  if (!last && std::chrono::duration<double>(now - shown_).count() < pause) return;
  shown_ = now;
  const int64_t here = std::max<int64_t>(1, done - start_);
  const double left = seconds / double(here) * double(total_ - done);
  std::string line = fmt::format("{} {}/{}", what_, done, total_);
  if (terminal_) {
    const int width = 24, full = int(double(width) * double(done) / double(std::max<int64_t>(1, total_)));
    line += fmt::format(" [{}{}]", std::string(size_t(full), '#'), std::string(size_t(width - full), '.'));
  }
  if (!note.empty()) line += "  " + note;
  if (rate_ > 0) line += fmt::format("  {} {}/s", rate_ < 999.5 ? fmt::format("{:.3g}", rate_) : fmt::format("{:.0f}", rate_), unit_);
  if (last || (rate_ > 0 && done - start_ > 1)) line += last ? "  in " + duration(seconds) : "  ETA " + duration(left);
  fmt::print(stderr, "{}{}{}", terminal_ ? "\r\033[K" : "", line, terminal_ ? "" : "\n");
  std::fflush(stderr);
  open_ = terminal_;
}

void Progress::finish() {
  if (open_) fmt::print(stderr, "\n");
  open_ = false;
}

namespace tools {

std::function<bool(int64_t, const Step&)> moving(Progress& progress, int64_t steps) {
  return [&progress, steps](int64_t first, const Step& step) {
    progress.update(image_steps(first, steps, step), double(step.x.size(0)));
    return !interrupted.load();
  };
}

}  // namespace tools
}  // namespace brume
