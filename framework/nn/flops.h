#pragma once
// Counting multiply-adds, for benchmarks.
#include <cstdint>

namespace brume::nn {

/// While one lives, the operations of nn/ called on this thread add what they compute (2 per multiply-add) to it.
class FlopCounter {
 public:
  FlopCounter();
  ~FlopCounter();
  FlopCounter(const FlopCounter&) = delete;
  FlopCounter& operator=(const FlopCounter&) = delete;
  double flops() const { return flops_; }
  static void add(double flops);

 private:
  double flops_ = 0;
  FlopCounter* outer_;
};

}  // namespace brume::nn
