#pragma once
// The time of a network by the operations of nn/ops.h: for benchmarks.
#include <chrono>
#include <cstdint>
#include <map>
#include <string>

namespace brume::nn {

/// While one lives, the operations that this thread calls add their time and what they compute to it. Without one they cost a comparison.
class OpProfile {
 public:
  struct Row {
    double seconds = 0;
    double flops = 0;  ///< 2 a multiply-add, of products only
    int64_t calls = 0;
  };

  OpProfile();
  ~OpProfile();
  OpProfile(const OpProfile&) = delete;
  OpProfile& operator=(const OpProfile&) = delete;

  const std::map<std::string, Row>& rows() const { return rows_; }
  double flops() const;

 private:
  friend class OpTimer;
  std::map<std::string, Row> rows_;
  OpProfile* outer_;
};

/// The time of an operation, from here to the end of the block; one within another counts for the outer one alone.
class OpTimer {
 public:
  OpTimer(const char* name, double flops = 0);
  ~OpTimer();
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

 private:
  OpProfile* profile_;
  const char* name_;
  double flops_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace brume::nn
